// Players: figures in which a network runs, driven by sliders. No library, no request.
//
// A plain script that sets window.ebbtide.players, a table of kinds: ebbtide.players.NAME(box, …data) fills a box. Every
// <div class="eb" data-player="NAME" data-with="a b"> is filled once it is seen, with the JSON of the script elements
// data-ebbtide="a" and "b". What players share is `Player`: stages to draw on, controls, one clock, walks by a worker.
"use strict";
(function () {
  const root = window, ebbtide = root.ebbtide, {draw, walk, network} = ebbtide;
  const still = () => root.matchMedia("(prefers-reduced-motion: reduce)").matches;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (name in made && name !== "list") made[name] = value;
      else made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  let made = 0; // numbers of controls
  const digits = (value, count = 2) => value.toFixed(count).replace("-", "−");

  // A walk: the positions of n samples at falling times, as they come in from the worker.
  class Walk {
    constructor(dim) {
      Object.assign(this, {dim, frames: [], times: [1], label: null, settings: null});
    }

    get whole() {
      return this.frames.length === this.times.length;
    }

    // x at t, between frames along the straight line; the last that is there for times not reached yet.
    at(t) {
      const {frames, times} = this;
      if (!frames.length) return null;
      let k = 0;
      while (k < frames.length - 1 && times[k + 1] >= t) k++;
      if (k >= frames.length - 1) return frames[frames.length - 1];
      const share = Math.min(Math.max((times[k] - t) / (times[k] - times[k + 1]), 0), 1), next = frames[k + 1];
      return frames[k].map((value, j) => value + share * (next[j] - value));
    }

    // The way of sample i up to t: [frames, times], the last at t itself.
    until(t) {
      const count = this.times.findIndex((time) => time < t), kept = count < 0 ? this.frames.length : count;
      return [[...this.frames.slice(0, kept), this.at(t)], [...this.times.slice(0, kept), t]];
    }

    // Mean length of the routes over the mean distance of their ends, as they are shown.
    straightness(shown = (x) => x) {
      let [length, direct] = [0, 0];
      const frames = this.frames.map((x, k) => shown(x, this.times[k])), {dim} = this, n = frames[0].length / dim, last = frames[frames.length - 1];
      const far = (a, b, i) => Math.hypot(...Array.from({length: dim}, (_, j) => a[i * dim + j] - b[i * dim + j]));
      for (let i = 0; i < n; i++) {
        direct += far(frames[0], last, i);
        for (let k = 1; k < frames.length; k++) length += far(frames[k], frames[k - 1], i);
      }
      return length / direct;
    }
  }

  class Player {
    constructor(box, models = []) {
      Object.assign(this, {box, models, t: 0, stages: [], paint: () => {}, changed: () => {}, controls: {}});
      box.replaceChildren();
      this.body = element("div", {className: "eb-body"});
      this.left = element("div");
      this.row = element("div", {className: "eb-stages"});
      this.panel = element("div", {className: "eb-controls"});
      this.facts = element("p", {className: "eb-facts", role: "status"});
      this.left.append(this.row);
      this.body.append(this.left, this.panel);
      box.append(this.body);
      new ResizeObserver(() => this.draw()).observe(box);
      root.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
      new MutationObserver(() => this.draw()).observe(document.body, {attributes: true, attributeFilter: ["data-theme", "class", "style"]});
    }

    get remote() {
      return (this.worker = this.worker || new walk.Remote(this.models));
    }

    // A canvas with a caption; clicked(x, y) gets CSS pixels in it, stepped(±1) the arrow keys left and right.
    stage(caption, {ratio = 1, label = caption, clicked = null, stepped = null} = {}) {
      const canvas = element("canvas", {role: "img", "aria-label": label}), words = element("figcaption", {textContent: caption});
      const box = element("figure", {className: "eb-stage"}, words, canvas);
      canvas.style.setProperty("--eb-ratio", ratio);
      if (clicked) {
        canvas.style.cursor = "crosshair";
        canvas.addEventListener("click", (event) => clicked(event.offsetX, event.offsetY));
      }
      if (stepped) {
        canvas.tabIndex = 0;
        canvas.addEventListener("keydown", (event) => {
          const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
          if (!by) return;
          event.preventDefault();
          stepped(by);
          this.draw();
        });
      }
      this.row.append(box);
      this.row.style.setProperty("--eb-columns", this.row.children.length);
      const own = {canvas, words, open: (limits, options) => draw.stage(canvas, limits, options)};
      this.stages.push(own);
      return own;
    }

    // The slider of time, from noise at its left to data at its right, and a button that moves it.
    // to, from: a clock of [0, 1] in which it runs, of t, and back.
    clock({seconds = 4, about = (t) => "", name = "time, from noise to data", forward = false, to = (t) => t, from = (u) => u} = {}) {
      const place = (t) => Math.round(1000 * (forward ? to(t) : 1 - to(t)));
      const output = element("output"), button = element("button", {type: "button"});
      const slider = element("input", {type: "range", min: 0, max: 1000, value: place(this.t), "aria-label": name});
      let playing = 0;
      const show = () => {
        slider.value = place(this.t);
        const end = this.t === 0 ? " data" : this.t === 1 ? " noise" : "", {own} = this;
        const reached = own && own.frames.length && !own.whole ? own.times[own.frames.length - 1] : this.t;
        const wait = reached > this.t ? `, computed to ${digits(reached)}` : ""; // what is drawn until then
        output.textContent = `t = ${digits(this.t, 3)}${end}${wait}${about(this.t)}`;
        slider.setAttribute("aria-valuetext", output.textContent);
        this.draw();
      };
      const stop = () => {
        cancelAnimationFrame(playing);
        playing = 0;
        button.textContent = "▶";
        button.setAttribute("aria-label", "play");
      };
      const play = () => {
        const end = forward ? 1 : 0, before = this.t === end ? 1 - end : to(this.t), start = performance.now();
        button.textContent = "❚❚";
        button.setAttribute("aria-label", "pause");
        const tick = (now) => {
          const gone = (now - start) / (1000 * seconds);
          this.t = from(forward ? Math.min(before + gone, 1) : Math.max(before - gone, 0));
          show();
          if (this.t === end) stop();
          else playing = requestAnimationFrame(tick);
        };
        playing = requestAnimationFrame(tick);
      };
      slider.addEventListener("input", () => {
        stop();
        this.t = from(forward ? slider.value / 1000 : 1 - slider.value / 1000);
        show();
      });
      button.addEventListener("click", () => (playing ? stop() : play()));
      stop();
      this.left.append(element("div", {className: "eb-time"}, button, slider, output), this.facts);
      Object.assign(this, {play: () => still() || play(), show});
      show();
    }

    range(name, text, {min, max, step = 1, value, format = String, live = true}) {
      const id = `eb-${++made}`, output = element("output", {"aria-hidden": "true"}), input = element("input", {type: "range", id, min, max, step, value});
      const own = {get value() { return Number(input.value); }, set value(to) { input.value = to; write(); }};
      const write = () => {
        output.textContent = format(own.value);
        input.setAttribute("aria-valuetext", output.textContent);
      };
      input.addEventListener("input", () => { write(); if (live) this.changed(name); });
      input.addEventListener("change", () => live || this.changed(name));
      write();
      own.label = element("label", {htmlFor: id}, text, output, input); // an output could be labelled, too
      this.panel.append(own.label);
      return (this.controls[name] = own);
    }

    // rows: [value, words], …
    choose(name, text, rows, value = rows[0][0]) {
      const input = element("select", {onchange: () => this.changed(name)},
        ...rows.map(([key, words]) => element("option", {value: key, textContent: words})));
      input.value = value;
      const own = {get value() { return input.value; }, set value(to) { input.value = to; }};
      own.label = element("label", {}, text, input);
      this.panel.append(own.label);
      return (this.controls[name] = own);
    }

    // rows: [name, words, whether it is on], …; they only change what is drawn.
    checks(...rows) {
      const box = element("div", {className: "eb-checks"});
      for (const [name, words, on] of rows) {
        const input = element("input", {type: "checkbox", checked: on, onchange: () => this.draw()});
        box.append(element("label", {className: "eb-check"}, input, words));
        this.controls[name] = {get value() { return input.checked; }, set value(to) { input.checked = to; }};
      }
      this.panel.append(box);
    }

    button(words, pressed) {
      const made = element("button", {type: "button", textContent: words, onclick: pressed});
      this.panel.append(made);
      return made;
    }

    get chosen() {
      return Object.fromEntries(Object.entries(this.controls).map(([name, control]) => [name, control.value]));
    }

    draw() {
      if (this.drawing) return;
      this.drawing = requestAnimationFrame(() => {
        this.drawing = 0;
        const {dark} = draw.theme(this.box);
        this.box.classList.toggle("eb-dark", dark);
        this.box.style.colorScheme = dark ? "dark" : "light";
        this.paint(this.t);
      });
    }

    // Fill a walk by a worker; a later walk of the same slot ends it. done: called once it is whole.
    walk(own, slot, model, settings, done = () => {}) {
      const fresh = [];
      own.asked = settings;
      this.remote.ask({kind: "walk", slot, model, ...settings}, ({x, last}) => {
        fresh.push(x);
        if (fresh.length === 1) Object.assign(own, {frames: fresh, times: settings.times, label: settings.label || null});
        if (last) done();
        if (this.show) this.show();
        else this.draw();
      });
    }

    // x̂₀ and velocities of points at a time; a question that a later one overtakes isn't answered.
    estimate(slot, model, asked, listener) {
      this.open = this.open || {};
      const state = (this.open[slot] = this.open[slot] || {busy: false, next: null});
      if (state.busy) return void (state.next = [model, asked, listener]);
      state.busy = true;
      this.remote.ask({kind: "estimate", model, ...asked}, (answer) => {
        state.busy = false;
        listener(answer);
        const next = state.next;
        state.next = null;
        if (next) this.estimate(slot, ...next);
      });
    }
  }

  // ── A run: particles under a slider of time, every sampler, grid and label ──────────────────────────────────────────

  const NAMES = {
    euler: "Euler", heun: "Heun", midpoint: "midpoint", rk4: "Runge–Kutta 4", ddim: "DDIM", dpmpp_2m: "DPM-Solver++ 2M",
    ddpm: "DDPM (ancestral)", dpmpp_2m_sde: "DPM-Solver++ 2M SDE", exponential_sde: "exponential SDE", jump: "jumps",
  };
  const ODE = ["euler", "heun", "midpoint", "rk4"];

  const options_ = (given) => Object.entries(given).map(([name, value], k) => `${k ? "," : ":"}${name}=${value}`).join("");

  // Which class each of n samples has: all of one, or every one in turn; null without labels.
  function labelsOf(choice, classes, n) {
    if (!classes || choice === "none") return null;
    return Array.from({length: n}, (_, i) => (choice === "turn" ? i % classes : Number(choice)));
  }

  function run(box, model) {
    const dim = model.network.dim, classes = model.classes.length, {sampling} = model;
    const player = new Player(box, [model]), own = (player.own = new Walk(dim)), path = network.path(model.path);
    const exploding = path(1).sigma > 3; // such an x_t is drawn divided by α + σ
    const size = (t) => { const c = path(t); return exploding ? c.alpha + c.sigma : 1; };
    // In the data's units: scaled column by column, or, of ranks, along the curve of each.
    const bent = (curve, z) => {
      const place = Math.min(Math.max((z / model.reach + 1) / 2, 0), 1) * (curve.length - 1), i = Math.min(Math.floor(place), curve.length - 2);
      return curve[i] + (place - i) * (curve[i + 1] - curve[i]);
    };
    const shown = (z, t) => z.map(model.curves ? (value, k) => bent(model.curves[k % dim], value / size(t))
      : (value, k) => model.centre[k % dim] + (model.scale[k % dim] * value) / size(t));
    const starts = model.starts ? network.numbers(model.starts) : null, real = model.real ? network.numbers(model.real) : null;
    let picked = null, arrows = null, field = null;

    const view = player.stage("", {label: "samples on their way from noise to data; a click, or an arrow key, shows one sample's route",
      stepped: (by) => (picked = Math.max((picked === null ? -1 : picked) + by, 0)),
      clicked: (px, py) => {
        const x = own.at(player.t);
        const found = x ? draw.nearest(open(), shown(x, player.t), px, py, {dim, of: axes()}) : -1;
        picked = found < 0 || found === picked ? null : found;
        player.draw();
      }});
    player.clock(exploding ? {to: (t) => network.tau(path(t)), from: (tau) => path.timeAt(tau)} : {});
    const c = (name) => player.controls[name] && player.controls[name].value;
    player.choose("sampler", "sampler", Object.entries(walk.SAMPLERS)
      .filter(([name, row]) => (row.spans ? model.network.spans : model.gaussian_end || ODE.includes(name)))
      .map(([name]) => [name, NAMES[name]]), sampling.sampler);
    const grids = Object.keys(walk.GRIDS).map((name) => [name, name.replace("_", " ")]);
    player.choose("grid", "grid", Object.keys(sampling.own).length ? [["own", "this run's own"], ...grids] : grids,
      Object.keys(sampling.own).length ? "own" : sampling.grid);
    player.range("steps", "steps", {min: 1, max: 100, value: sampling.steps, live: false});
    player.range("eta", "fresh noise η", {min: 0, max: 1, step: 0.05, value: sampling.options.eta || 0, live: false, format: (v) => digits(v)});
    if (classes) {
      player.choose("label", "class", [["turn", "every class in turn"],
        ...(model.learns_null ? [["none", "no label"]] : []), ...model.classes.map((name, k) => [k, name])]);
      if (model.guidable)
        player.range("weight", "guidance", {min: 0, max: 8, step: 0.25, value: 1, live: false, format: (v) => `w = ${digits(v)}`});
    }
    player.range("count", "samples", {min: 100, max: starts ? Math.min(starts.length / dim, 2000) : 2000, step: 100,
      value: model.base ? 300 : 1000, live: false});
    player.range("seed", "seed", {min: 0, max: 99, value: 0, live: false});
    if (dim > 2) {
      const rows = model.columns.map((name, k) => [k, name]);
      player.choose("across", "across", rows, 0);
      player.choose("up", "up", rows, 1);
    }
    player.checks(["routes", "routes", true], ["density", "density", false], ["arrows", "arrows to x̂₀", false],
      ...(dim === 2 && !model.curves ? [["field", "vector field", false]] : []), ...(real ? [["real", "data", true]] : []));
    const axes = () => (dim > 2 ? [Number(c("across")), Number(c("up"))] : [0, 1]);

    const limits = () => axes().slice(0, Math.max(dim, 1)).map((k) => {
      if (k >= dim) return [-1, 1];
      if (model.curves) {
        const [low, high] = [model.curves[k][0], model.curves[k][model.curves[k].length - 1]], margin = 0.05 * (high - low) || 1;
        return [low - margin, high + margin];
      }
      const reach = 2.9 * (model.scale[k] || 1), [low, high] = model.limits ? model.limits[k] : [Infinity, -Infinity];
      return [Math.min(low, model.centre[k] - reach), Math.max(high, model.centre[k] + reach)];
    });
    const open = (options) => {
      const found = limits(), [[a, b], [d, e]] = found, alike = (b - a) / (e - d);
      return draw.stage(view.canvas, found, {equal: dim > 1 && alike < 4 && alike > 0.25, ...options});
    };

    function settings() {
      const {sampler, grid, steps, count, seed, eta, label = "none", weight = 1} = player.chosen;
      const given = {...(sampler === sampling.sampler ? sampling.options : {}), ...(sampler === "ddim" ? {eta} : {})};
      const kept = grid === "own" ? sampling.own[steps] : null, shape = grid === sampling.grid ? sampling.shape : {};
      const times = kept || walk.times(grid === "own" ? "flow_power" : grid, shape, steps, path);
      return {sampler, options: given, times, n: count, seed, label: labelsOf(label, classes, count), weight,
        start: starts ? starts.slice(0, count * dim) : null};
    }

    player.changed = (name) => {
      if (name === "across" || name === "up") return player.draw();
      player.controls.eta.label.hidden = c("sampler") !== "ddim";
      const asked = settings();
      player.walk(own, 0, 0, asked, report);
    };

    const python = element("pre"), told = element("details", {}, element("summary", {textContent: "as Python"}), python);
    player.panel.append(told);
    told.style.gridColumn = "1 / -1";

    function report() {
      const {sampler, options, times, label, weight, n, seed} = own.asked, guided = label !== null && weight !== 1;
      const named = c("grid") === "own" ? "" : c("grid") + (c("grid") === sampling.grid ? options_(sampling.shape) : "");
      const grid = named ? `grid="${named}", steps=${times.length - 1}` : `grid=${JSON.stringify(times)}`;
      const whose = !label ? "" : c("label") === "turn" ? `, label=run.in_turn(${n})` : `, label=${JSON.stringify(model.classes[label[0]])}`;
      python.textContent = `import ebbtide\n\nrun = ebbtide.from_pretrained("RUN")\nx = run.sample(\n    ${n}, seed=${seed}${whose}` +
        `${guided ? `, guidance=${Number.isInteger(weight) ? weight.toFixed(1) : weight}` : ""},\n    sampler="${sampler}${options_(options)}", ${grid},\n)`;
      const calls = walk.evaluations(sampler, times.length - 1, guided);
      player.facts.textContent = `${calls} evaluations of the network a sample; routes ${digits(own.straightness(shown))} ` +
        `times as long as the straight way.`;
      if (!report.played) player.play();
      report.played = true;
    }

    player.paint = (t) => {
      const s = open(), of = axes(), z = own.at(t), {theme} = s;
      const tint = model.path.name === "linear" || model.path.name === "bridge" ? theme.flow : theme.diffusion;
      if (real && c("real") && !c("density")) draw.particles(s, real, {dim, of, colour: theme.real, size: 1.2, alpha: 0.35});
      if (z) {
        const x = shown(z, t), n = x.length / dim;
        if (c("density")) draw.density(s, x, {dim, of, colour: tint});
        if (c("routes")) {
          const [frames, times] = own.until(t);
          const few = Array.from({length: Math.min(walk.SAMPLERS[own.asked.sampler].noise ? 6 : 24, n)}, (_, i) => i);
          const those = frames.map((frame, k) => shown(frame.subarray(0, few.length * dim), times[k]));
          draw.routes(s, those, few, {dim, of, times, width: 1, alpha: 0.55});
        }
        if (!c("density")) draw.particles(s, x, {dim, of, labels: own.label, colour: tint, alpha: 0.7});
        if (c("arrows") && arrows && arrows.n === n) draw.arrows(s, x, shown(arrows.x0, 0), {dim, of, only: arrows.only, alpha: 0.5});
        if (c("field") && dim === 2 && field) draw.field(s, field, FIELD);
        if (picked !== null && picked < n) choose(s, x, t, of);
        ask(s, z, t);
      }
      draw.axes(s, {x: model.columns[of[0]], y: dim > 1 ? model.columns[of[1]] : ""});
      view.words.textContent = exploding ? "x divided by α + σ" : "";
    };

    const FIELD = [22, 22];

    // The route of the sample that was clicked, its 20 neighbours here, and where they end.
    function choose(s, x, t, of) {
      const far = Float64Array.from({length: x.length / dim}, (_, i) => {
        let sum = 0;
        for (let j = 0; j < dim; j++) sum += (x[i * dim + j] - x[picked * dim + j]) ** 2;
        return sum;
      });
      const few = Array.from(far, (_, i) => i).sort((a, b) => far[a] - far[b]).slice(0, 21); // itself is the first
      const all = own.frames.map((frame, k) =>
        shown(Float32Array.from(few.flatMap((i) => Array.from(frame.subarray(i * dim, (i + 1) * dim)))), own.times[k]));
      const near = few.map((_, i) => i).slice(1);
      draw.routes(s, all, near, {dim, of, colour: s.theme.quiet, width: 0.8, alpha: 0.5});
      draw.routes(s, all, [0], {dim, of, colour: s.theme.paper, width: 5, alpha: 0.9});
      draw.routes(s, all, [0], {dim, of, times: own.times, width: 2.6});
      draw.particles(s, all[all.length - 1], {dim, of, colour: s.theme.ink, only: near, size: 2.4, alpha: 0.9});
      draw.particles(s, x, {dim, of, colour: s.theme.ink, only: [picked], size: 4.5, alpha: 1});
    }

    // Estimates at the time shown, for what is switched on; drawn when they come.
    function ask(s, z, t) {
      const key = [t, own.asked.seed, own.frames.length, c("arrows"), c("field"), own.asked.weight, z.length, s.limits].join();
      if (key === ask.key) return;
      ask.key = key;
      const n = z.length / dim, {label, weight} = own.asked;
      if (c("arrows")) {
        const only = Array.from({length: Math.min(n, 90)}, (_, i) => i);
        player.estimate(0, 0, {x: z, t, label, weight}, ({x0}) => { arrows = {x0, n, only}; player.draw(); });
      }
      if (c("field") && dim === 2) {
        const points = draw.lattice(s, FIELD).map((value, k) => ((value - model.centre[k % 2]) / (model.scale[k % 2] || 1)) * size(t));
        const one = label && c("label") !== "turn" ? Array.from({length: points.length / 2}, () => label[0]) : null;
        player.estimate(1, 0, {x: points, t, label: one, weight: one ? weight : 1}, ({x0, noise, velocity}) => {
          // the way that samples take, from noise to data
          const way = exploding ? x0.map((value, k) => value - noise[k]) : velocity.map((value) => -value);
          field = way.map((value, k) => value * model.scale[k % 2]);
          player.draw();
        });
      }
    }

    player.changed();
    return player;
  }

  ebbtide.players = {...ebbtide.players, run};
  Object.assign(ebbtide, {Player, Walk, element, digits, labelsOf});

  // Fill every box of the page when it comes into view; box.player is there from then on.
  ebbtide.fill = (box) => {
    const data = (box.dataset.with || "").split(" ").filter(Boolean)
      .map((name) => JSON.parse(document.querySelector(`script[data-ebbtide="${name}"]`).textContent));
    box.player = ebbtide.players[box.dataset.player](box, ...data);
  };
  const begin = () => {
    const seen = new IntersectionObserver((entries) => {
      for (const {isIntersecting, target} of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        ebbtide.fill(target);
      }
    }, {rootMargin: "200px"});
    for (const box of document.querySelectorAll("[data-player]")) seen.observe(box);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
