// The page reads without this. It adds: details where one points, filters, a wider time line, and the recording's time.

(() => {
  const byId = (id) => document.getElementById(id);
  const el = (tag, name, text) => Object.assign(document.createElement(tag), { className: name, textContent: text ?? "" });
  document.documentElement.classList.add("js");

  const rail = byId("rail");
  if (!rail) return; // nobody said anything
  const data = JSON.parse(byId("data").textContent);
  const lengthMs = Number(rail.dataset.length);
  const rows = [...document.querySelectorAll("tr[id]")];
  const lanes = [...document.querySelectorAll(".lane")];
  const bars = new Map([...document.querySelectorAll(".said-bar")].map((bar) => [bar.dataset.id, bar]));
  const media = [...document.querySelectorAll("video, audio")];
  const track = byId("track");

  // ---- what one points at

  let shown = null; // id of the utterance whose details are shown
  let chosen = rows[0].id; // it stays when nothing is pointed at

  function show(id) {
    if (id === shown) return;
    for (const node of [bars.get(shown), byId(shown ?? "")]) node?.classList.remove("selected");
    shown = id;
    const row = byId(id);
    for (const node of [bars.get(id), row]) node.classList.add("selected");
    const verdict = row.querySelector(".verdict").textContent.trim().replace(/\s+/g, " ");
    const when = el("p", "when", [row.dataset.who, row.querySelector(".time").textContent.trim(), verdict].join(" · "));
    const notes = row.querySelectorAll(".views, .more .hint");
    byId("detail").replaceChildren(...[row.querySelector(".said"), when, ...notes].map((node) => node.cloneNode(true)));
  }

  const stops = new Map(lanes.map((lane) => [lane, lane.querySelector(".said-bar")])); // one tab stop a lane

  function choose(id) {
    const bar = bars.get(id);
    const lane = bar.closest(".lane");
    stops.get(lane).setAttribute("tabindex", "-1");
    stops.set(lane, bar);
    bar.setAttribute("tabindex", "0");
    chosen = id;
    show(id);
  }

  function seek(id) {
    for (const one of media) one.currentTime = byId(id).dataset.start / 1000;
    media[0]?.play().catch(() => {}); // the file may not be there
  }

  for (const link of document.querySelectorAll("a[data-id]")) {
    const { id } = link.dataset;
    const isBar = link.classList.contains("said-bar");
    link.addEventListener("click", (event) => {
      if (isBar || link.closest("td")) event.preventDefault(); // the row is here, or its details are
      choose(id);
      seek(id);
    });
    if (isBar) {
      link.addEventListener("mouseenter", () => show(id));
      link.addEventListener("mouseleave", () => show(chosen));
      link.addEventListener("focus", () => choose(id));
    }
  }

  for (const [lane, stop] of stops) {
    for (const bar of lane.querySelectorAll(".said-bar")) bar.setAttribute("tabindex", bar === stop ? "0" : "-1");
    lane.addEventListener("keydown", (event) => {
      const own = [...lane.querySelectorAll(".said-bar:not(.dim)")];
      const at = own.indexOf(document.activeElement);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: own.length - 1 }[event.key];
      if (to === undefined || !own[to]) return;
      event.preventDefault();
      own[to].focus();
      own[to].scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  // ---- filters

  const controls = ["search", "who", "emotion", "missing"].map(byId);
  const searched = new Map(); // row → what a search looks at

  function textOf(row) {
    if (!searched.has(row)) {
      const parts = [".who", ".verdict", ".said"].map((name) => row.querySelector(name).textContent);
      searched.set(row, parts.join(" ").toLowerCase());
    }
    return searched.get(row);
  }

  function filter() {
    const [search, who, emotion, missing] = controls;
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fits =
        wanted.every((word) => textOf(row).includes(word)) &&
        (!who.value || row.dataset.who === who.value) &&
        (!emotion.value || row.dataset.emotion === emotion.value) &&
        (!missing.checked || "missing" in row.dataset);
      row.hidden = !fits;
      bars.get(row.id).classList.toggle("dim", !fits);
      count += fits;
    }
    byId("found").textContent = `${count} of ${rows.length}`;
    byId("nothing").hidden = count > 0;
  }

  for (const control of controls) control.addEventListener("input", filter);
  controls[0].form.addEventListener("submit", (event) => event.preventDefault());

  // ---- all probabilities, made when they are looked at

  function matrix(id) {
    const columns = Object.entries(data.utterances[id]);
    const head = el("tr");
    head.append(el("td"), ...columns.map(([name]) => el("th", "", name)));
    const lines = data.emotions.map((emotion, place) => {
      const line = el("tr");
      const cells = columns.map(([, values]) => {
        const best = values[place] === Math.max(...values);
        return el("td", best ? "best" : "", `${(values[place] * 100).toFixed(1)} %`);
      });
      line.append(el("th", "", emotion), ...cells);
      return line;
    });
    const table = el("table", "matrix");
    table.append(el("thead"), el("tbody"));
    table.tHead.append(head);
    table.tBodies[0].append(...lines);
    return table;
  }

  function open(event) {
    const details = event.target;
    if (details.children.length === 1) details.append(matrix(details.closest("tr").id));
  }

  document.querySelector("table").addEventListener("toggle", open, true); // it does not bubble

  // ---- the width of the time line

  const LEGIBLE = 5; // px a second: an utterance can be pointed at
  const WIDEST = 40;
  const TICK_PX = 60; // from one to the next at least
  const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  let scale = 1; // 1: the whole fits

  function pxPerS() {
    return (track.clientWidth * scale) / (lengthMs / 1000);
  }

  function zoom(to) {
    const middle = (track.scrollLeft + track.clientWidth / 2) / track.scrollWidth;
    scale = Math.max(1, to);
    rail.style.width = `${scale * 100}%`;
    track.scrollLeft = middle * track.scrollWidth - track.clientWidth / 2;
    byId("narrower").disabled = byId("whole").disabled = scale === 1;
    byId("wider").disabled = pxPerS() >= WIDEST;
    const stepS = STEPS_S.find((step) => step * pxPerS() >= TICK_PX) ?? STEPS_S.at(-1);
    for (const tick of document.querySelectorAll(".tick")) {
      const cut = (lengthMs / 1000 - tick.dataset.second) * pxPerS() < TICK_PX / 2; // no room for its words
      tick.setAttribute("visibility", cut || tick.dataset.second % stepS ? "hidden" : "visible");
    }
  }

  byId("narrower").addEventListener("click", () => zoom(scale / 2));
  byId("wider").addEventListener("click", () => zoom(scale * 2));
  byId("whole").addEventListener("click", () => zoom(1));
  addEventListener("resize", () => zoom(scale));
  zoom(LEGIBLE / pxPerS());
  track.scrollLeft = 0;

  // ---- the recording's time; several recordings of one conversation run together

  function follow(first) {
    const atMs = first.currentTime * 1000;
    for (const lane of lanes) {
      const line = lane.querySelector(".playhead");
      for (const end of ["x1", "x2"]) line.setAttribute(end, `${(100 * atMs) / lengthMs}%`);
      line.setAttribute("visibility", atMs > 0 ? "visible" : "hidden");
    }
    for (const row of rows) {
      const bar = bars.get(row.id);
      bar.classList.toggle("now", atMs > 0 && row.dataset.start <= atMs && atMs < row.dataset.end);
    }
  }

  for (const one of media) {
    const others = media.filter((other) => other !== one);
    one.addEventListener("play", () => others.forEach((other) => other.paused && other.play().catch(() => {})));
    one.addEventListener("pause", () => others.forEach((other) => other.pause()));
    one.addEventListener("seeked", () =>
      others.forEach((other) => Math.abs(other.currentTime - one.currentTime) > 0.2 && (other.currentTime = one.currentTime)),
    );
  }
  media[0]?.addEventListener("timeupdate", () => follow(media[0]));

  choose(chosen);
})();
