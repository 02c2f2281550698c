// The lab's page: watch methods learn, see runs sample, compare them. Plain JavaScript; draws with draw.js.
//
// All that is computed is computed by the server, over one websocket: ask("sample", {run, n, …}) sends JSON and
// returns a promise of {header, arrays}. While something learns, the server sends events ("learning") by itself.
"use strict";
(function () {
  const {draw} = window.ebbtide;
  const $ = (id) => document.getElementById(id);
  const make = (tag, fields = {}) => Object.assign(document.createElement(tag), fields);
  const EXTENT = [[-3.5, 3.5], [-3.5, 3.5]]; // of the paper that one paints on
  const PLAY = 3500; // milliseconds from noise to data
  const NEIGHBOURS = 24;
  const LATTICE = [22, 22]; // arrows of a field

  // -- the websocket ---------------------------------------------------------------------------------------------------

  let socket = null, number = 0;
  const waiting = new Map();
  const on = {}; // event's name → what to do with it

  function connect() {
    const address = new URL("ws", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => begin();
    socket.onmessage = (event) => {
      const found = unpacked(event.data), {id, error, event: name} = found.header;
      if (name && id === undefined) return on[name](found);
      const [done, failed] = waiting.get(id) || [];
      waiting.delete(id);
      if (error) failed && failed(new Error(error));
      else if (done) done(found);
    };
    socket.onclose = () => {
      for (const [, failed] of waiting.values()) failed(new Error("The connection was closed."));
      waiting.clear();
      tell("The lab has ended. Start it again and open the address that it prints.", true);
      setTimeout(connect, 3000);
    };
  }

  // A header of JSON after its length, then the arrays that it lists.
  function unpacked(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    const kinds = {float32: Float32Array, int32: Int32Array, uint8: Uint8Array}, arrays = {};
    for (const {name, shape, type, at} of header.arrays || []) {
      const size = shape.reduce((a, b) => a * b, 1);
      arrays[name] = {shape, data: new kinds[type](buffer, 4 + length + at, size)};
    }
    return {header, arrays};
  }

  function ask(action, fields = {}) {
    return new Promise((done, failed) => {
      if (!socket || socket.readyState !== WebSocket.OPEN) return failed(new Error("The lab isn't connected."));
      waiting.set(++number, [done, failed]);
      socket.send(JSON.stringify({id: number, do: action, ...fields}));
    });
  }

  // Calls of an asynchronous function, one at a time; of those that come meanwhile only the last is made.
  function latest(work) {
    let busy = false, next = null;
    return async function call(...given) {
      if (busy) { next = given; return; }
      busy = true;
      try { await work(...given); } catch (error) { tell(error.message, true); }
      busy = false;
      if (next) { const again = next; next = null; call(...again); }
    };
  }

  let fading = 0;
  function tell(words, bad = false) {
    const place = $("status");
    place.textContent = words;
    place.classList.toggle("bad", bad);
    clearTimeout(fading);
    if (bad) fading = setTimeout(() => tell(""), 12000);
  }

  // A button whose work the server does: disabled meanwhile, and errors become a sentence.
  function press(button, work) {
    button.addEventListener("click", async () => {
      button.disabled = true;
      try { await work(); } catch (error) { tell(error.message, true); }
      button.disabled = false;
    });
  }

  const lab = {runs: [], learners: [], recipes: {points: [], images: []}, samplers: {}, grids: []};

  function options(select, names, chosen = select.value, first = null) {
    select.replaceChildren();
    if (first !== null) select.append(make("option", {value: "", textContent: first}));
    for (const name of names) {
      const [value, words] = Array.isArray(name) ? name : [name, name.replaceAll("_", " ")];
      select.append(make("option", {value, textContent: words}));
    }
    if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
  }

  const short = (value) => (value === null || value === undefined || !isFinite(value)) ? "–"
    : Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2))).replace("-", "−");
  const clock = (seconds) => seconds === null ? "" : seconds < 90 ? `${Math.ceil(seconds)} s left`
    : `${Math.ceil(seconds / 60)} min left`;

  // -- watch it learn --------------------------------------------------------------------------------------------------

  const paper = {points: [], strokes: [], cursor: [0, 0], real: null, limits: EXTENT, images: null, painting: false};
  const panelOf = (template) => $(template).content.firstElementChild.cloneNode(true);
  const lives = [panelOf("live"), panelOf("live")]; // of the methods that learn
  $("learners").append(...lives);
  const looks = new Map(); // learner's key → the newest samples
  const histories = new Map(); // learner's key → losses

  on.lab = ({header}) => {
    Object.assign(lab, header);
    for (const learner of lab.learners) histories.set(learner.key, learner.losses);
    showLearners();
    showRuns();
  };

  on.learning = ({header, arrays}) => {
    lab.learners = header.learners.map((one) => ({...lab.learners.find(({key}) => key === one.key), ...one}));
    for (const one of header.learners) if (one.losses) histories.set(one.key, one.losses);
    for (const [key, array] of Object.entries(arrays)) looks.set(key, array);
    window.ebbtide.looks = (window.ebbtide.looks || 0) + (Object.keys(arrays).length ? 1 : 0); // for whoever measures
    showLearners();
  };

  function dataKind() {
    const chosen = $("data").value;
    return chosen === "digits" || (chosen === lab.data && lab.kind === "images") ? "images" : "points";
  }

  async function begin() {
    const found = await ask("about");
    on.lab(found);
    tell("");
    const own = lab.data && !lab.sets.includes(lab.data) && lab.data !== "digits" ? [[lab.data, lab.data]] : [];
    options($("data"), [...own, ...lab.sets, ["digits", "digits (images)"], ["", "paint your own"]], lab.data || "two_moons");
    chooseData();
    if (lab.runs.length && !lab.learners.length) show("sample");
    for (const view of views) view.refresh();
  }

  const chooseData = latest(async () => {
    const data = $("data").value, kind = dataKind();
    const [first, second] = kind === "images" ? ["ddpm-images", "flow-images"] : ["ddpm", "flow"];
    options($("method-0"), lab.recipes[kind].map((name) => [name, name]), first);
    options($("method-1"), lab.recipes[kind].map((name) => [name, name]), second, "nothing");
    if ($("method-0").value === "") $("method-0").value = first;
    paper.painting = data === "";
    $("brushes").hidden = !paper.painting;
    Object.assign(paper, {real: null, images: null, limits: EXTENT});
    $("by-class").closest("label").hidden = true;
    if (!paper.painting) {
      const {header, arrays} = await ask("data", {data});
      paper.images = arrays.images || null;
      paper.real = arrays.real || null;
      paper.limits = header.limits || EXTENT;
      $("by-class").closest("label").hidden = header.classes < 2;
    }
    $("steps").value = kind === "images" ? 600 : 2000;
    drawPaper();
  });

  function drawPaper() {
    const canvas = $("paper");
    if (paper.images) {
      drawSheet(canvas, paper.images, 0, []);
      $("data-note").textContent = "some of the images";
      return;
    }
    const limits = paper.limits.length === 1 ? [paper.limits[0], [-1, 1]] : paper.limits;
    const s = paper.stage = draw.stage(canvas, limits), points = paper.painting ? Float32Array.from(paper.points.flat())
      : paper.real ? paper.real.data : new Float32Array();
    draw.axes(s, {});
    draw.particles(s, points, {dim: paper.real && !paper.painting ? paper.real.shape[1] : 2, colour: s.theme.real, size: 1.6,
      alpha: 0.7});
    if (paper.painting) {
      if (!paper.points.length) draw.text(s, "Paint here with the mouse or a finger.", 0, 0, {size: 15});
      if (document.activeElement === canvas) cross(s, paper.cursor);
      $("data-note").textContent = `${paper.points.length} points painted`;
    } else $("data-note").textContent = $("data").selectedOptions[0]?.textContent || "";
  }

  function cross(s, [x, y]) {
    const [px, py] = [s.x(x), s.y(y)], context = s.context;
    context.save();
    Object.assign(context, {strokeStyle: s.theme.ink, lineWidth: 1.5});
    context.beginPath();
    for (const [u, v] of [[9, 0], [0, 9]]) { context.moveTo(px - u, py - v); context.lineTo(px + u, py + v); }
    context.stroke();
    context.restore();
  }

  // A few points around a place, as wide as the brush.
  function dab(place, count = 4) {
    const width = $("brush").value / 100;
    for (let k = 0; k < count && paper.points.length < 20000; k++) {
      const [r, turn] = [width * Math.sqrt(-2 * Math.log(1 - Math.random())), 2 * Math.PI * Math.random()];
      paper.points.push([place[0] + r * Math.cos(turn), place[1] + r * Math.sin(turn)].map((v) => Number(v.toFixed(4))));
    }
    drawPaper();
  }

  function paint() {
    const canvas = $("paper");
    let last = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return paper.stage.back(event.clientX - box.left, event.clientY - box.top);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (!paper.painting) return;
      canvas.setPointerCapture(event.pointerId);
      paper.strokes.push(paper.points.length);
      dab(last = at(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last || !paper.painting) return;
      const place = at(event);
      if (Math.hypot(place[0] - last[0], place[1] - last[1]) > 0.05) dab(last = place);
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
    canvas.addEventListener("keydown", (event) => {
      if (!paper.painting) return;
      const step = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15]}[event.key];
      if (step) paper.cursor = paper.cursor.map((v, k) => Math.min(Math.max(v + step[k], -3.4), 3.4));
      else if (event.key === " " || event.key === "Enter") { paper.strokes.push(paper.points.length); dab(paper.cursor, 12); }
      else return;
      event.preventDefault();
      event.stopPropagation();
      drawPaper();
    });
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, drawPaper);
    $("undo").addEventListener("click", () => { paper.points.length = paper.strokes.pop() ?? 0; drawPaper(); });
    $("clear").addEventListener("click", () => { paper.points = []; paper.strokes = []; drawPaper(); });
  }

  function showLearners() {
    const states = lab.learners.map(({state}) => state), busy = ["starting", "training", "fitting"];
    lives.forEach((figure, k) => {
      const learner = lab.learners[k], canvas = figure.querySelector("canvas");
      figure.hidden = !learner;
      if (!learner) return;
      const {key, name, state, step, steps, left, kept, error} = learner, what = {fitting: "fitting its solvers",
        starting: "starting, a few seconds", failed: error}[state] || state;
      figure.querySelector("b").textContent = name;
      figure.querySelector("figcaption span").textContent =
        [`step ${step} of ${steps}`, what, clock(left ?? null), kept && `kept in ${kept}`].filter(Boolean).join(" · ");
      canvas.setAttribute("aria-label", `Samples of ${name} on ${learner.data} after ${step} of ${steps} steps`);
      const folder = figure.querySelector(".keep input");
      const plain = learner.data.replace(/^.*[/\\]/, "").replace(/\.[^.]*$/, "").replaceAll(" ", "-");
      if (!folder.value || folder.dataset.key !== key) folder.value = `runs/lab-${name}-${plain}`;
      folder.dataset.key = key;
      figure.querySelector(".keep button").disabled = !["paused", "done", "stopped"].includes(state);
      drawLive(canvas, looks.get(key), k, learner);
    });
    const paused = states.includes("paused") || states.includes("stopped");
    $("pause").disabled = !paused && !states.some((state) => busy.includes(state));
    $("pause").textContent = paused ? "Go on" : "Pause";
    $("to-sample").disabled = !lab.learners.some(({step}) => step > 0);
    drawLosses();
  }

  const tintOf = (theme, name, k) => /ddpm|edm/.test(name) ? theme.diffusion : k && /flow/.test(lab.learners[0].name)
    ? theme.classes[0] : theme.flow;

  function drawLive(canvas, look, k, learner) {
    if (learner.kind === "images") {
      if (look) drawSheet(canvas, look, 0, []);
      return;
    }
    const s = draw.stage(canvas, paper.limits.length === 1 ? [paper.limits[0], [-1, 1]] : paper.limits);
    draw.axes(s, {});
    const real = paper.painting ? Float32Array.from(paper.points.flat()) : paper.real && paper.real.data;
    const dim = look ? look.shape[1] : 2;
    if (real) draw.particles(s, real, {dim: paper.real && !paper.painting ? paper.real.shape[1] : 2, colour: s.theme.real, size: 1.2,
      alpha: 0.3});
    if (look) draw.particles(s, look.data, {dim, colour: tintOf(s.theme, learner.name, k), size: 2, alpha: 0.85});
  }

  function drawLosses() {
    const rows = lab.learners.map((one, k) => [one, k, histories.get(one.key) || []]).filter(([, , found]) => found.length > 1);
    $("losses-figure").hidden = !rows.length;
    if (!rows.length) return;
    const values = rows.flatMap(([, , found]) => found.map(([, loss]) => Math.log10(Math.max(loss, 1e-9))));
    const sorted = [...values].sort((a, b) => a - b), low = sorted[0], high = sorted[Math.floor(0.995 * (sorted.length - 1))];
    const most = Math.max(...rows.map(([one]) => one.steps)), pad = 0.1 * Math.max(high - low, 0.1);
    const s = draw.stage($("losses"), [[0, most], [low - pad, high + pad]], {equal: false});
    const marks = [-4, -3, -2, -1, 0, 1, 2].flatMap((p) => [1, 2, 5].map((m) => [p + Math.log10(m), String(Number((m * 10 ** p).toPrecision(1)))]));
    draw.axes(s, {x: "step", yTicks: marks.filter(([v]) => v > low - pad && v < high + pad)});
    for (const [one, k, found] of rows)
      draw.curve(s, found.map(([step]) => step), found.map(([, loss]) => Math.min(Math.log10(Math.max(loss, 1e-9)), high + pad)),
        {colour: tintOf(s.theme, one.name, k), dash: k ? [6, 3] : []});
    $("losses-note").textContent = rows.map(([one, k, found]) =>
      `${one.name}${k ? " (dashed)" : ""}: ${short(found[found.length - 1][1])}`).join(" · ") + " · not comparable across targets";
  }

  function learning() {
    $("data").addEventListener("change", chooseData);
    paint();
    $("training").addEventListener("submit", async (event) => {
      event.preventDefault();
      $("train").disabled = true;
      tell("Preparing …");
      try {
        const methods = [$("method-0").value, $("method-1").value].filter(Boolean);
        looks.clear();
        histories.clear();
        const found = await ask("train", {methods, data: $("data").value, points: paper.painting ? paper.points : null,
          steps: Number($("steps").value), conditional: $("by-class").checked && !$("by-class").closest("label").hidden});
        on.lab(found);
        tell("");
      } catch (error) { tell(error.message, true); }
      $("train").disabled = false;
    });
    $("pause").addEventListener("click", async () => {
      try {
        const {header} = await ask($("pause").textContent === "Pause" ? "pause" : "go");
        on.learning({header, arrays: {}});
      } catch (error) { tell(error.message, true); }
    });
    lives.forEach((figure, k) => figure.querySelector(".keep").addEventListener("submit", async (event) => {
      event.preventDefault();
      const folder = figure.querySelector(".keep input").value;
      try {
        const found = await ask("keep", {key: lab.learners[k].key, folder});
        on.lab(found);
        tell(`Kept in ${found.header.kept}.`);
      } catch (error) { tell(error.message, true); }
    }));
    $("to-sample").addEventListener("click", () => {
      if (lab.learners[1] && views.length < 2) compare(true);
      lab.learners.forEach((one, k) => views[k] && views[k].choose(one.key));
      show("sample");
    });
  }

  // -- see it sample ---------------------------------------------------------------------------------------------------

  const views = []; // one or two panels
  const picked = {ids: [], near: []}; // a sample that was clicked, and its neighbours
  let time = 0, playing = 0;

  class View {
    constructor(letter) {
      this.letter = letter;
      this.figure = panelOf("view");
      this.canvas = this.figure.querySelector("canvas");
      for (const element of this.figure.querySelectorAll("[data-of]")) this[element.dataset.of.replace("-text", "Text")] = element;
      this.cursor = [0, 0];
      this.way = null; // of an encoding
      this.chosen = []; // images
      $("views").append(this.figure);
      this.run.addEventListener("change", () => { this.reset(); this.refresh(); });
      for (const name of ["sampler", "grid", "steps", "eta", "label", "guidance"])
        this[name].addEventListener("input", () => { this.shown(); this.refresh(); });
      this.refresh = latest(() => this.load());
      this.measure = latest(() => this.judge());
      this.loadField = latest(() => this.askField());
      this.encode = latest((place) => this.askWay(place));
      this.pointer();
      options(this.run, lab.runs.map(({key, name}) => [key, name]));
      this.reset();
    }

    get about() { return lab.runs.find(({key}) => key === this.run.value); }

    choose(key) {
      this.run.value = key;
      this.reset();
      this.refresh();
    }

    // Controls as the run has them.
    reset() {
      const about = this.about;
      if (!about) return;
      const fitting = Object.entries(lab.samplers).filter(([, {spans}]) => !spans || about.spans).map(([name]) => [name, name]);
      options(this.sampler, fitting, "", `own: ${about.sampler}`);
      options(this.grid, lab.grids.map((name) => [name, name]), "", `own: ${about.grid}`);
      this.steps.value = "";
      this.steps.placeholder = about.count;
      options(this.label, about.classes.map((name) => [name, name]), "", about.null ? "none" : "as in the data");
      this.guidance.value = 1;
      this.way = null;
      this.shown();
      readyColumns();
    }

    shown() {
      const about = this.about, sampler = this.sampler.value;
      const eta = (lab.samplers[sampler || about.sampler.split(":")[0]] || {}).eta;
      this.figure.querySelector("[data-for=eta]").hidden = !eta;
      this.figure.querySelector("[data-for=label]").hidden = !about.classes.length;
      this.figure.querySelector("[data-for=guidance]").hidden = !about.classes.length || !this.label.value || !about.null;
      this.etaText.textContent = this.eta.value;
      this.guidanceText.textContent = this.guidance.value;
    }

    // The fields of an action on what this panel shows.
    fields() {
      const visible = (name) => !this.figure.querySelector(`[data-for=${name}]`).hidden, robots = this.about.kind === "robots";
      const images = this.about.kind === "images", most = images ? 64 : robots ? 256 : 20000;
      return {run: this.run.value, n: Math.min(Math.max(1, Number($("n").value) || 1), most), seed: Number($("seed").value) || 0,
        sampler: this.sampler.value, grid: this.grid.value, steps: Number(this.steps.value) || 0,
        eta: visible("eta") && Number(this.eta.value) > 0 ? Number(this.eta.value) : null, label: visible("label") ? this.label.value : "",
        guidance: visible("guidance") ? Number(this.guidance.value) : 1,
        ...(images || robots ? {} : {columns: columnsOf(this.about)})};
    }

    async load() {
      const about = this.about;
      if (!about || $("sample").hidden) return;
      this.note.textContent = "sampling …";
      const robots = about.kind === "robots", begun = performance.now();
      try {
        if (robots) { await this.loadFan(); return; }
        if (about.kind === "points" && this.realOf !== `${about.key} ${columnsOf(about)}`) {
          const real = await ask("real", {run: about.key, columns: columnsOf(about)});
          Object.assign(this, {limits: real.header.limits, real: real.arrays.real, realOf: `${about.key} ${columnsOf(about)}`});
        }
        const found = await ask("sample", this.fields());
        Object.assign(this, {times: found.header.times, header: found.header, frames: found.arrays.frames,
          guesses: found.arrays.guesses, labels: found.arrays.labels});
        this.extent = about.kind === "points" ? extentOf(this) : null;
        this.numbersNow({});
        const unfinished = found.header.step < about.steps ? `step ${found.header.step} of ${about.steps} · ` : "";
        this.note.textContent = `${unfinished}${about.path.split(":")[0]} path, ${about.target} target`;
      } catch (error) { this.note.textContent = ""; throw error; }
      window.ebbtide.took = performance.now() - begun;
      this.speed = null;
      redraw();
      quote();
      if (about.kind === "points") this.measure();
      if ($("layer-field").checked) this.loadField();
    }

    async judge() {
      const fields = this.fields(), {header} = await ask("judge", fields);
      if (JSON.stringify(fields) === JSON.stringify(this.fields())) this.numbersNow(header);
    }

    // What the walk cost and how far it ended from the truth, each beside what real data score.
    numbersNow({distances = null, solver = null}) {
      const {evaluations, straightness} = this.header, rows = [["evaluations", short(evaluations)],
        ["straightness", straightness === null ? "–" : straightness.toFixed(3)]];
      if (this.about.kind === "points" && !distances) rows.push(["distance", "measuring …"]);
      for (const {name, value, floor, p, note} of distances || []) {
        if (note) rows.push([name, note]);
        else rows.push([name, `${short(value)}`, `real data ${short(floor)}${p >= 0.01 ? ", at the floor" : ""}`]);
      }
      if (solver !== null) rows.push(["solver’s error", short(solver), "exact flow 0"]);
      this.numbers.replaceChildren(...rows.map(([name, value, beside]) => {
        const row = make("div");
        row.append(make("dt", {textContent: name}), make("dd", {textContent: value}));
        if (beside) row.lastChild.append(make("small", {textContent: ` (${beside})`}));
        return row;
      }));
    }

    // x_t at the slider's time: between the two frames around it.
    at(t) {
      const {times, frames} = this, [count, n, dim] = frames.shape, size = n * dim;
      let k = 0;
      while (k < count - 2 && times[k + 1] > t) k++;
      const share = Math.min(Math.max((times[k] - t) / (times[k] - times[k + 1] || 1), 0), 1);
      const a = frames.data.subarray(k * size, (k + 1) * size), b = frames.data.subarray((k + 1) * size, (k + 2) * size);
      if (!this.now || this.now.length !== size) this.now = new Float32Array(size);
      for (let i = 0; i < size; i++) this.now[i] = a[i] + share * (b[i] - a[i]);
      this.frame = share < 0.5 ? k : k + 1;
      return this.now;
    }

    list(array) {
      const [count, n, dim] = array.shape;
      return Array.from({length: count}, (_, k) => array.data.subarray(k * n * dim, (k + 1) * n * dim));
    }

    draw() {
      const about = this.about;
      if (!this.frames || !about || about.kind === "robots") return;
      this.canvas.setAttribute("aria-label", `Samples of ${about.name}, ${timeText()}`);
      if (about.kind === "images") {
        let k = 0;
        while (k < this.times.length - 1 && this.times[k] > time + 1e-9) k++;
        this.cells = drawSheet(this.canvas, this.frames, k, this.chosen);
        return;
      }
      const dim = this.frames.shape[2], s = this.stage = draw.stage(this.canvas, extent(about), {equal: !about.levels.length});
      const own = layers(), x = this.at(time);
      const colour = this.tint(s.theme);
      this.drawBackdrop(s, dim, own("real"));
      if (own("density")) draw.density(s, x, {dim, colour});
      if (own("field") && this.speed) draw.field(s, this.speed, LATTICE);
      if (own("routes")) draw.routes(s, this.list(this.frames), [...Array(Math.min(40, this.frames.shape[1])).keys()],
        {dim, times: this.times, width: 1, alpha: 0.6});
      if (own("particles")) {
        const n = x.length / dim, size = n > 5000 ? 1.3 : n > 500 ? 1.9 : 2.6;
        if (this.labels) draw.particles(s, x, {dim, labels: this.labels.data, size});
        else draw.particles(s, x, {dim, colour, size, alpha: 0.75});
      }
      if (own("guesses") && this.guesses) {
        const [, n] = this.guesses.shape, to = this.list(this.guesses)[this.frame];
        draw.arrows(s, this.list(this.frames)[this.frame].subarray(0, n * dim), to, {dim});
      }
      this.drawPicked(s, dim, x);
      if (this.way) this.drawWay(s, dim);
      if (document.activeElement === this.canvas) cross(s, this.cursor);
    }

    // The axes and the real data, drawn once and copied as long as nothing about them changes.
    drawBackdrop(s, dim, real) {
      const of = columnsOf(this.about), names = of.map((k) => this.about.columns[k]);
      const [xTicks, yTicks] = of.map((k) => named(this.about.levels[k] || []));
      const key = JSON.stringify([s.width, s.height, s.ratio, s.limits, s.theme.dark, real, this.realOf]);
      if (key === this.backdropOf) {
        s.context.drawImage(this.backdrop, 0, 0, s.width, s.height);
        return;
      }
      draw.axes(s, {x: names[0], y: names[1] || "", xTicks, yTicks});
      if (real && this.real) draw.particles(s, this.real.data, {dim, colour: s.theme.real, size: 1.3, alpha: 0.3});
      this.backdrop = make("canvas", {width: this.canvas.width, height: this.canvas.height});
      this.backdrop.getContext("2d").drawImage(this.canvas, 0, 0);
      this.backdropOf = key;
    }

    tint(theme) {
      const other = views.find((view) => view !== this);
      return other && this.letter === "B" && other.about?.colour === this.about.colour ? theme.classes[0]
        : theme[this.about.colour];
    }

    drawPicked(s, dim, x) {
      const n = this.frames.shape[1], ids = picked.ids.filter((i) => i < n), near = picked.near.filter((i) => i < n);
      if (!ids.length) return;
      const frames = this.list(this.frames);
      draw.routes(s, frames, near, {dim, colour: s.theme.quiet, width: 0.8, alpha: 0.55});
      draw.particles(s, x, {dim, colour: s.theme.quiet, only: near, size: 3, alpha: 0.9});
      draw.routes(s, frames, ids, {dim, times: this.times, width: 3});
      draw.particles(s, x, {dim, colour: s.theme.ink, only: ids, size: 5, alpha: 1});
    }

    drawWay(s, dim) {
      const {data, shape: [count]} = this.way, frames = Array.from({length: count}, (_, k) => data.subarray(k * dim, (k + 1) * dim));
      draw.routes(s, frames, [0], {dim, times: this.wayTimes, width: 3});
      const ends = [["noise", frames[0]], ["data", frames[count - 1]]];
      for (const [word, place] of ends) {
        draw.particles(s, place, {dim, colour: s.theme.ink, size: 5, kind: word === "noise" ? "square" : "circle", alpha: 1});
        draw.text(s, word, place[0], dim > 1 ? place[1] : 0, {dy: -13});
      }
    }

    async askField() {
      if (!this.about.flat) throw new Error(FLAT);
      const t = time, {limits} = this.stage;
      const {arrays} = await ask("field", {...this.fields(), t, frame: limits, sides: LATTICE});
      this.speed = arrays.speed.data;
      redraw();
    }

    async askWay(place) {
      if (!this.about.flat) throw new Error(FLAT);
      const {header, arrays} = await ask("encode", {...this.fields(), point: place.slice(0, this.about.shape[0])});
      Object.assign(this, {way: arrays.way, wayTimes: header.times});
      redraw();
    }

    pick(px, py, far = 24) {
      const dim = this.frames.shape[2], x = this.at(time), i = draw.nearest(this.stage, x, px, py, {dim, within: far});
      if (i < 0) return false;
      const distance = (j) => { let sum = 0; for (let d = 0; d < dim; d++) sum += (x[j * dim + d] - x[i * dim + d]) ** 2; return sum; };
      const order = [...Array(x.length / dim).keys()].filter((j) => j !== i).sort((a, b) => distance(a) - distance(b));
      Object.assign(picked, {ids: [i], near: order.slice(0, NEIGHBOURS)});
      tell(`Sample ${i} and its ${Math.min(NEIGHBOURS, order.length)} neighbours at ${timeText()}.`);
      redraw();
      return true;
    }

    pointer() {
      const canvas = this.canvas;
      let from = null, dragged = false;
      const place = (event) => {
        const box = canvas.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (!this.frames || this.about.kind === "robots") return;
        [from, dragged] = [place(event), false];
        canvas.setPointerCapture(event.pointerId);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (!from || this.about.kind !== "points") return;
        const [px, py] = place(event);
        dragged = dragged || Math.hypot(px - from[0], py - from[1]) > 5;
        if (dragged) this.encode(this.cursor = this.stage.back(px, py));
      });
      canvas.addEventListener("pointerup", (event) => {
        if (!from) return;
        const [px, py] = place(event);
        from = null;
        if (this.about.kind === "images") this.pickImage(px, py);
        else if (!dragged) {
          this.cursor = this.stage.back(px, py);
          if (!this.pick(px, py)) clearPicked();
        }
      });
      canvas.addEventListener("pointercancel", () => { from = null; });
      canvas.addEventListener("keydown", (event) => {
        if (!this.frames) return;
        const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
        if (this.about.kind === "images") {
          if (way) this.moveImage(way);
          else if (event.key === "Enter") this.toggleImage(this.focused ?? 0);
          else return;
        } else if (way) {
          const step = (this.stage.limits[0][1] - this.stage.limits[0][0]) / 40;
          this.cursor = this.cursor.map((v, k) => v + step * way[k]);
        } else if (event.key === "Enter") this.pick(this.stage.x(this.cursor[0]), this.stage.y(this.cursor[1]), 1e4);
        else if (event.key === "e" || event.key === "E") this.encode(this.cursor);
        else if (event.key === "Escape") clearPicked();
        else return;
        event.preventDefault();
        event.stopPropagation();
        redraw();
      });
      for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => redraw());
    }
  }
  const FLAT = "Fields and encodings are drawn of data with one or two columns, seen through a linear codec.";
  const layers = () => (layer) => $(`layer-${layer}`).checked;

  function clearPicked() {
    Object.assign(picked, {ids: [], near: []});
    for (const view of views) view.way = null;
    tell("");
    redraw();
  }

  // Where the data and all but a hundredth of the noise of a walk lie: [low, high] of the two axes.
  function extentOf({limits, frames}) {
    const [, n, dim] = frames.shape;
    return [0, 1].map((d) => {
      if (d >= dim) return [-1, 1];
      const all = Float32Array.from({length: n}, (_, i) => frames.data[i * dim + d]);
      const first = all.filter(Number.isFinite).sort(), last = first.length - 1; // without missing cells
      const ends = last < 0 ? [0, 1] : [first[Math.floor(0.005 * last)], first[Math.ceil(0.995 * last)]];
      return [...(limits ? limits[d] : []), ...ends];
    });
  }

  // One frame for all panels of the same columns.
  function extent(about) {
    const alike = (view) => view.frames && view.extent && String(view.about.columns) === String(about.columns);
    const found = views.filter(alike).map((view) => view.extent);
    return [0, 1].map((d) => found.flatMap((both) => both[d])).map((values) => [Math.min(...values), Math.max(...values)]);
  }

  const columnsOf = (about) => about.shape[0] === 1 ? [0]
    : [Number($("column-0").value) || 0, $("column-1").value === "" ? 1 : Number($("column-1").value)].map((k) => Math.min(k, about.shape[0] - 1));

  // Of a column of levels the names in the place of its numbers, of many a few; null for a column of numbers.
  function named(levels, most = 6) {
    const apart = Math.ceil(levels.length / most);
    return levels.length ? levels.map((name, k) => [k, name.slice(0, 14)]).filter(([k]) => k % apart === 0) : null;
  }

  function readyColumns() {
    const about = views[0]?.about;
    if (!about) return;
    options($("quoted"), views.map((view, k) => [String(k), views.length > 1 ? ["left", "right"][k] : "the panel"]));
    const kinds = new Set(views.map((view) => view.about?.kind)), wide = about.kind === "points" && about.shape[0] > 2;
    for (const label of document.querySelectorAll(".axis")) label.hidden = !wide;
    const names = about.columns.map((name, k) => [String(k), name]);
    options($("column-0"), names, $("column-0").value || "0");
    options($("column-1"), names, $("column-1").value && $("column-1").options.length === names.length ? $("column-1").value : "1");
    for (const element of document.querySelectorAll(".points-only")) element.hidden = !kinds.has("points");
    $("pictures").hidden = !kinds.has("images");
    for (const view of views) {
      const robots = view.about?.kind === "robots";
      view.canvas.hidden = robots;
      view.figure.querySelector(".fan").hidden = !robots;
    }
    $("n").max = kinds.has("points") ? 20000 : kinds.has("images") ? 64 : 256;
    if (!kinds.has("points") && Number($("n").value) > Number($("n").max)) $("n").value = kinds.has("images") ? 16 : 48;
  }

  function showRuns() {
    $("nothing").hidden = lab.runs.length > 0;
    $("looking").hidden = !lab.runs.length;
    $("tab-sample").disabled = false;
    if (!lab.runs.length) return;
    if (!views.length) {
      views.push(new View("A"));
      if (lab.runs.length > 1 && !lab.learners.length) { compare(true); views[1].choose(lab.runs[1].key); }
    }
    for (const view of views) {
      const before = view.run.value;
      options(view.run, lab.runs.map(({key, name}) => [key, name]), before);
      if (view.run.value !== before) view.reset();
      view.refresh();
    }
    readyColumns();
  }

  function compare(more = views.length < 2) {
    if (more && views.length < 2) {
      const view = new View("B"), other = views[0];
      views.push(view);
      const next = lab.runs.find(({key}) => key !== other.run.value);
      view.choose(next ? next.key : other.run.value);
    } else if (!more && views.length > 1) views.pop().figure.remove();
    $("compare").setAttribute("aria-pressed", String(views.length > 1));
    readyColumns();
    redraw();
  }

  // -- time ------------------------------------------------------------------------------------------------------------

  // Of a policy the slider goes through the episode, whose chunks are at t = 0 always.
  const policy = () => views.length && views.every((view) => view.about?.kind === "robots") ? views[0] : null;
  const placeOf = (view) => Math.round((1 - time) * ((view.moments || 1) - 1));
  const timeText = () => policy() ? `step ${placeOf(policy())} of ${policy().moments || "…"}` : time >= 0.9995 ? "t = 1 noise" : time <= 0.0005 ? "t = 0 data" : `t = ${time.toFixed(2)}`;

  function setTime(t) {
    time = Math.min(Math.max(t, 0), 1);
    $("time").value = Math.round(1000 * (1 - time));
    $("time").setAttribute("aria-valuetext", timeText());
    $("time-text").textContent = timeText();
    if (policy()) for (const view of views) view.refresh();
    else if ($("layer-field").checked) for (const view of views) if (view.frames && view.about.flat) view.loadField();
    redraw();
  }

  let drawing = 0;
  function redraw() {
    if (drawing) return;
    drawing = requestAnimationFrame(() => {
      drawing = 0;
      for (const view of views) view.draw();
      window.ebbtide.drawn = (window.ebbtide.drawn || 0) + 1; // for whoever measures
    });
  }

  function play() {
    if (playing) { stopPlaying(); return; }
    let before = performance.now();
    if (time <= 0) setTime(1);
    $("play").textContent = "❚❚";
    $("play").setAttribute("aria-label", "Pause");
    const step = (now) => {
      setTime(time - (now - before) / PLAY);
      before = now;
      if (time <= 0) stopPlaying();
      else playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  }

  function stopPlaying() {
    cancelAnimationFrame(playing);
    playing = 0;
    $("play").textContent = "▶";
    $("play").setAttribute("aria-label", "Play");
  }

  // -- as text ---------------------------------------------------------------------------------------------------------

  let quoting = "code";
  const quote = latest(async () => {
    const view = views[Number($("quoted").value) || 0];
    if (!view || !view.about) { $("quote").textContent = ""; return; }
    try {
      const place = view.about.kind === "robots" ? {place: placeOf(view)} : {};
      const {header} = await ask("quote", {...view.fields(), ...place});
      $("quote").textContent = header[quoting];
    } catch (error) { $("quote").textContent = error.message; }
  });

  async function copy(what) {
    quoting = what;
    await quote();
    const words = $("quote").textContent;
    try {
      await navigator.clipboard.writeText(words);
      tell("Copied.");
    } catch {
      const range = document.createRange();
      range.selectNodeContents($("quote"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      tell("The text is selected: copy it with Ctrl-C.");
    }
  }

  // -- images ----------------------------------------------------------------------------------------------------------

  // An image of an array (…, c, h, w) of uint8, drawn once on a canvas of its own size.
  function picture(data, at, [channels, height, width]) {
    const canvas = make("canvas"), size = channels * height * width;
    draw.pixels(canvas, data.subarray(at * size, (at + 1) * size), height, width, channels, {low: 0, high: 255});
    return canvas;
  }

  // Frame k of (frames, n, c, h, w), or (n, c, h, w), as a sheet; returns where each image is.
  function drawSheet(canvas, {data, shape}, k, chosen) {
    const own = shape.slice(-3), n = shape[shape.length - 4], first = shape.length > 4 ? k * n : 0;
    const width = canvas.clientWidth || 300, height = canvas.clientHeight || 300, ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d"), columns = Math.ceil(Math.sqrt((n * width) / height)) || 1;
    const rows = Math.ceil(n / columns), side = Math.min(width / columns, height / rows);
    const [left, top] = [(width - side * columns) / 2, (height - side * rows) / 2], cells = [];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < n; i++) {
      const x = left + side * (i % columns), y = top + side * Math.floor(i / columns);
      context.drawImage(picture(data, first + i, own), x + 1.5, y + 1.5, side - 3, side - 3);
      if (chosen.includes(i)) {
        Object.assign(context, {strokeStyle: draw.theme(canvas).diffusion, lineWidth: 3});
        context.strokeRect(x + 1.5, y + 1.5, side - 3, side - 3);
      }
      cells.push([x, y, side]);
    }
    cells.columns = columns;
    return cells;
  }

  Object.assign(View.prototype, {
    pickImage(px, py) {
      const i = this.cells.findIndex(([x, y, side]) => px >= x && px < x + side && py >= y && py < y + side);
      if (i >= 0) this.toggleImage(i);
    },

    moveImage([across, up]) {
      const n = this.frames.shape[1];
      this.focused = Math.min(Math.max((this.focused ?? 0) + across - up * this.cells.columns, 0), n - 1);
      tell(`Image ${this.focused}; Enter chooses it.`);
    },

    // The newest two chosen ones.
    toggleImage(i) {
      this.chosen = this.chosen.includes(i) ? this.chosen.filter((j) => j !== i) : [...this.chosen, i].slice(-2);
      $("chosen").textContent = this.chosen.length ? `chosen: ${this.chosen.join(" and ")}` : "";
      const last = this.chosen[this.chosen.length - 1];
      if (last !== undefined) this.showStrip(last);
      redraw();
    },

    // x_t above x̂₀, from noise to the image.
    showStrip(i) {
      const [count, n, ...own] = this.frames.shape, rows = [];
      for (const array of [this.frames, this.guesses].filter(Boolean))
        rows.push(Array.from({length: count}, (_, k) => picture(array.data, k * n + i, own)));
      drawStrip(`Image ${i} from noise`, "x_t above, the network’s x̂₀ below", rows);
    },
  });

  const mask = {known: null, view: null, index: 0, cell: 0};

  function drawStrip(title, note, rows, size = 0) {
    $("strip-figure").hidden = false;
    $("strip-title").textContent = title;
    $("strip-note").textContent = note;
    mask.known = null;
    $("fill").hidden = true;
    const canvas = $("strip"), most = Math.max(...rows.map((row) => row.length));
    const room = $("strip-figure").clientWidth - 18, side = size || Math.max(40, Math.min(110, Math.floor(room / most)));
    const ratio = window.devicePixelRatio || 1;
    Object.assign(canvas, {width: most * side * ratio, height: rows.length * side * ratio});
    Object.assign(canvas.style, {width: `${most * side}px`, height: `${rows.length * side}px`});
    canvas.setAttribute("aria-label", `${title}: ${note}`);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    rows.forEach((row, j) => row.forEach((image, k) =>
      context.drawImage(image, (k * side + 1) * ratio, (j * side + 1) * ratio, (side - 2) * ratio, (side - 2) * ratio)));
    $("strip-figure").scrollIntoView({block: "nearest"});
  }

  const imageView = () => views.find((view) => view.about?.kind === "images" && view.chosen.length)
    || views.find((view) => view.about?.kind === "images");

  function imagery() {
    press($("sweep"), async () => {
      const {header, arrays} = await ask("sweep", imageView().fields()), {data, shape: [rows, columns, ...own]} = arrays.images;
      drawStrip(`Guidance ${header.weights.join(", ")}`, `one weight a row; classes ${header.classes.join(", ")}`,
        Array.from({length: rows}, (_, j) => Array.from({length: columns}, (_, k) => picture(data, j * columns + k, own))));
    });
    press($("between"), async () => {
      const view = imageView();
      if (view.chosen.length < 2) throw new Error("Click two images first: the way between their noises is drawn.");
      const {arrays} = await ask("between", {...view.fields(), pair: view.chosen}), {data, shape: [n, ...own]} = arrays.images;
      drawStrip("Interpolation", `from image ${view.chosen[0]} to ${view.chosen[1]}, along the arc between their noises`,
        [Array.from({length: n}, (_, k) => picture(data, k, own))]);
    });
    press($("mask"), async () => {
      const view = imageView(), i = view.chosen[view.chosen.length - 1];
      if (i === undefined) throw new Error("Click an image first: the mask is painted on it.");
      const [count, n, ...own] = view.frames.shape;
      const side = Math.min(288, $("strip-figure").parentElement.clientWidth - 20);
      drawStrip(`Image ${i}`, "paint over what is to be drawn again, then fill in",
        [[picture(view.frames.data, (count - 1) * n + i, own)]], side);
      Object.assign(mask, {known: new Array(own[1] * own[2]).fill(1), view, index: i, own, side});
      $("fill").hidden = false;
      $("strip").focus();
    });
    press($("fill"), async () => {
      const {arrays} = await ask("inpaint", {...mask.view.fields(), index: mask.index, known: mask.known});
      const {data, shape: [n, ...own]} = arrays.ways, known = [...mask.known];
      const holed = picture(arrays.image.data, 0, own), context = holed.getContext("2d");
      context.fillStyle = "#d55e00";
      known.forEach((value, k) => value || context.fillRect(k % own[2], Math.floor(k / own[2]), 1, 1));
      drawStrip("Filled in", "the image, what was hidden of it, and four ways to fill that in",
        [[picture(arrays.image.data, 0, own), holed, ...Array.from({length: n}, (_, k) => picture(data, k, own))]]);
    });
    const canvas = $("strip");
    let down = false, cursor = [0, 0];
    const hide = (column, row) => {
      const [, height, width] = mask.own, ratio = window.devicePixelRatio || 1, context = canvas.getContext("2d");
      const reach = Math.max(0, Math.round(width / 16));
      context.fillStyle = "#d55e00";
      for (let r = row - reach; r <= row + reach; r++) for (let c = column - reach; c <= column + reach; c++) {
        if (r < 0 || c < 0 || r >= height || c >= width) continue;
        mask.known[r * width + c] = 0;
        const [w, h] = [((mask.side - 2) * ratio) / width, ((mask.side - 2) * ratio) / height];
        context.fillRect(ratio + c * w, ratio + r * h, Math.ceil(w), Math.ceil(h));
      }
    };
    const stroke = (event) => {
      if (!down || !mask.known) return;
      const box = canvas.getBoundingClientRect(), [, height, width] = mask.own;
      hide(Math.floor(((event.clientX - box.left) / box.width) * width), Math.floor(((event.clientY - box.top) / box.height) * height));
    };
    canvas.addEventListener("pointerdown", (event) => { down = true; stroke(event); });
    canvas.addEventListener("pointermove", stroke);
    window.addEventListener("pointerup", () => { down = false; });
    canvas.addEventListener("keydown", (event) => {
      const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
      if (!mask.known || !(way || event.key === " ")) return;
      const [, height, width] = mask.own;
      if (way) cursor = [Math.min(Math.max(cursor[0] + way[0], 0), width - 1), Math.min(Math.max(cursor[1] + way[1], 0), height - 1)];
      else hide(...cursor);
      tell(`Row ${cursor[1]}, column ${cursor[0]}; Space hides it.`);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  // -- policies --------------------------------------------------------------------------------------------------------

  Object.assign(View.prototype, {
    async loadFan() {
      const {header, arrays} = await ask("fan", {...this.fields(), place: placeOf(this)});
      const {columns, moments, moment, ms, fps, evaluations} = header, place = this.figure.querySelector(".fan");
      if (this.moments !== moments) { this.moments = moments; setTime(time); }
      const {data, shape: [n, horizon, actions]} = arrays.chunks, shown = Math.min(actions, 6);
      this.note.textContent = `${n} chunks for the moment ${moment.toFixed(1)} s, over what was recorded`
        + (actions > shown ? `; ${shown} of ${actions} actions shown` : "");
      while (place.children.length > shown) place.lastChild.remove();
      while (place.children.length < shown) place.append(make("canvas", {role: "img"}));
      const steps = [...Array(horizon).keys()].map((k) => k / fps);
      [...place.children].forEach((canvas, a) => {
        const of = (array, from) => steps.map((_, k) => array[from + k * actions + a]);
        const rows = Array.from({length: n}, (_, i) => of(data, i * horizon * actions)), done = of(arrays.recorded.data, 0);
        const every = [...rows.flat(), ...done], [low, high] = [Math.min(...every), Math.max(...every)], pad = 0.08 * (high - low || 1);
        const s = draw.stage(canvas, [[0, steps[horizon - 1] || 1], [low - pad, high + pad]], {equal: false});
        draw.axes(s, {x: "s", y: columns[a] || `action ${a + 1}`});
        for (const row of rows) draw.curve(s, steps, row, {colour: s.theme[this.about.colour], width: 1, alpha: Math.max(0.12, 4 / n)});
        draw.curve(s, steps, done, {colour: s.theme.ink, width: 2, dash: [5, 3]});
        canvas.setAttribute("aria-label", `Predicted chunks of ${columns[a] || `action ${a + 1}`}`);
      });
      this.numbers.replaceChildren(...[["evaluations", short(evaluations)], ["ms a chunk", short(ms)]].map(([name, value]) => {
        const row = make("div");
        row.append(make("dt", {textContent: name}), make("dd", {textContent: value}));
        return row;
      }));
      quote();
    },
  });

  // -- the page --------------------------------------------------------------------------------------------------------

  function show(name) {
    for (const tab of ["learn", "sample"]) {
      $(tab).hidden = tab !== name;
      $(`tab-${tab}`).setAttribute("aria-selected", String(tab === name));
      $(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
    }
    if (name === "sample") for (const view of views) view.refresh();
    else { drawPaper(); showLearners(); }
  }

  function everything() {
    for (const name of ["learn", "sample"]) $(`tab-${name}`).addEventListener("click", () => show(name));
    document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = $("learn").hidden ? "learn" : "sample";
      show(other);
      $(`tab-${other}`).focus();
    });
    learning();
    imagery();
    for (const name of ["n", "seed", "column-0", "column-1"])
      $(name).addEventListener("change", () => { clearPicked(); for (const view of views) view.refresh(); });
    for (const box of document.querySelectorAll(".layers input")) box.addEventListener("change", () => {
      if (box.id === "layer-field" && box.checked) for (const view of views) if (view.frames) view.loadField();
      redraw();
    });
    $("compare").addEventListener("click", () => compare());
    $("play").addEventListener("click", play);
    $("time").addEventListener("input", () => {
      stopPlaying();
      setTime(1 - $("time").value / 1000);
    });
    $("quoted").addEventListener("change", quote);
    $("copy-code").addEventListener("click", () => copy("code"));
    $("copy-command").addEventListener("click", () => copy("command"));
    document.addEventListener("keydown", (event) => {
      if (event.key === " " && !$("sample").hidden && !event.target.closest("button, input, select, pre")) {
        event.preventDefault();
        play();
      }
    });
    const again = () => { if ($("sample").hidden) { drawPaper(); showLearners(); } else redraw(); };
    const sized = new ResizeObserver(() => requestAnimationFrame(again)); // a canvas keeps its pixels when it shrinks
    for (const element of [$("paper"), $("losses"), $("views"), ...lives]) sized.observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    connect();
  }
  everything();
})();
