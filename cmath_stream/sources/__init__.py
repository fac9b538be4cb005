"""What a replay can be fed with: turns over a mixed track, written dialogues, clips, features, a pipe."""
