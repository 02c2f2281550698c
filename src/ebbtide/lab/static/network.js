// A run's denoiser in the browser: path, network, target; the formulas of core/paths.py, core/targets.py,
// core/denoiser.py, core/randomness.py and networks/mlp.py, in the same symbols.
//
// A plain script that sets window.ebbtide.network, in a page or in a worker:
//
//   const denoiser = ebbtide.network.denoiser(model)      model: what lab/page.py writes
//   denoiser.estimate(x, c, {label, to, weight})          x̂₀ and ε̂ of n samples at the scales c = denoiser.path(t)
//   ebbtide.network.path({name: "ddpm", steps: 1000})     t → {t, alpha, sigma, alphaDot, sigmaDot}
//   ebbtide.network.noise(seed, ids, step, dim)           the library's own normal numbers, by address
//
// Samples are rows of a Float32Array. Everything is defined inside `install`, whose text a worker is made of.
"use strict";
(function () {
  function install(root) {
    const ebbtide = (root.ebbtide = root.ebbtide || {});

    // ── Paths ───────────────────────────────────────────────────────────────────────────────────────────────────────

    function variancePreserving(t, logBar, slope) {
      const alpha = Math.exp(logBar / 2), sigma = Math.sqrt(Math.abs(Math.expm1(logBar))), alphaDot = (alpha * slope) / 2;
      return {t, alpha, sigma, alphaDot, sigmaDot: (-alpha * alphaDot) / sigma};
    }

    // log ᾱ at i/N for i = 0 … N.
    function logAlphaBar({betas = "linear", steps = 1000, beta_min = 1e-4, beta_max = 0.02, table = []}) {
      const even = (low, high, i) => low + ((high - low) * i) / Math.max(steps - 1, 1);
      const bar = (i) => Math.cos(((i / steps + 0.008) / 1.008) * (Math.PI / 2)) ** 2;
      const beta = {
        linear: (i) => even(beta_min, beta_max, i),
        scaled_linear: (i) => even(Math.sqrt(beta_min), Math.sqrt(beta_max), i) ** 2,
        squared_cosine: (i) => Math.min(1 - bar(i + 1) / bar(i), 0.999),
      }[betas];
      const values = table.length ? table : Array.from({length: steps}, (_, i) => beta(i));
      const sums = new Float64Array(values.length + 1);
      values.forEach((value, i) => (sums[i + 1] = sums[i] + Math.log1p(-value)));
      return sums;
    }

    const PATHS = {
      linear: () => (t) => ({t, alpha: 1 - t, sigma: t, alphaDot: -1, sigmaDot: 1}),
      cosine: ({offset = 0.008}) => (t) => {
        const rate = Math.PI / 2 / (1 + offset), phase = rate * (t + offset), first = Math.cos(rate * offset);
        const alpha = Math.sin(rate * (1 - t)) / first, alphaDot = (-rate * Math.sin(phase)) / first;
        const sigma = Math.sqrt(Math.max(Math.sin(rate * t) * Math.sin(phase + rate * offset), 0)) / first;
        return {t, alpha, sigma, alphaDot, sigmaDot: offset === 0 ? rate * alpha : (-alpha * alphaDot) / sigma};
      },
      ddpm: (options) => {
        const table = logAlphaBar(options), n = table.length - 1;
        return (t) => {
          const i = Math.min(Math.max(Math.floor(t * n), 0), n - 1), slope = (table[i + 1] - table[i]) * n;
          return variancePreserving(t, table[i] + slope * (t - i / n), slope);
        };
      },
      vp: ({beta_min = 0.1, beta_max = 20}) => (t) => {
        const rise = beta_max - beta_min;
        return variancePreserving(t, 2 * ((-t * t * rise) / 4 - (t * beta_min) / 2), -(beta_min + t * rise));
      },
      ve: ({sigma_max = 80}) => (t) => ({t, alpha: 1, sigma: sigma_max * t, alphaDot: 0, sigmaDot: sigma_max}),
      bridge: ({spread = 0.5}) => (t) => {
        const s2 = spread * spread, sigma = Math.sqrt(t * t + s2 * t * (1 - t));
        return {t, alpha: 1 - t, sigma, alphaDot: -1, sigmaDot: s2 === 0 ? 1 : (t + (s2 * (1 - 2 * t)) / 2) / sigma};
      },
    };

    function path({name, ...options}) {
      const scales = PATHS[name](options);
      // The time at which σ/α is `ratio`: it grows with t on every path.
      scales.timeOf = (ratio) => {
        if (!(ratio > 0)) return 0;
        if (name === "linear") return ratio === Infinity ? 1 : ratio / (1 + ratio);
        if (name === "ve") return Math.min(ratio / scales(1).sigma, 1);
        let [low, high] = [0, 1];
        for (let k = 0; k < 60; k++) {
          const middle = (low + high) / 2, c = scales(middle);
          if (c.sigma < ratio * c.alpha) low = middle;
          else high = middle;
        }
        return (low + high) / 2;
      };
      scales.timeAt = (tau) => scales.timeOf(tau >= 1 ? Infinity : tau / (1 - tau));
      scales.entries = name === "ddpm" ? (options.table && options.table.length) || options.steps || 1000 : 1000;
      return scales;
    }

    const ratio = (c) => (c.alpha ? c.sigma / c.alpha : Infinity);
    const tau = (c) => c.sigma / (c.alpha + c.sigma);

    // ── Targets: y = a x₀ + b ε ─────────────────────────────────────────────────────────────────────────────────────

    const norm = (c, std) => Math.sqrt(c.sigma ** 2 + (c.alpha * std) ** 2);
    const TARGETS = {
      x0: () => [1, 0],
      noise: () => [0, 1],
      score: (c) => [0, -1 / c.sigma],
      velocity: (c) => [c.alphaDot, c.sigmaDot],
      v: (c) => [-c.sigma, c.alpha],
      edm: (c, {data_std = 1}) => [c.sigma / (data_std * norm(c, data_std)), (-c.alpha * data_std) / norm(c, data_std)],
    };

    function combine(p, x, q, y) {
      const out = new Float32Array(x.length);
      if (q === 0) for (let k = 0; k < out.length; k++) out[k] = p * x[k];
      else if (p === 0) for (let k = 0; k < out.length; k++) out[k] = q * y[k];
      else for (let k = 0; k < out.length; k++) out[k] = p * x[k] + q * y[k];
      return out;
    }

    // x̂₀ and ε̂ as two tensors and the rows of numbers that make them of these.
    function estimate(first, second, x0 = [1, 0], noise = [0, 1]) {
      const mix = (a, b) => combine(a * x0[0] + b * noise[0], first, a * x0[1] + b * noise[1], second);
      return {mix, get x0() { return mix(1, 0); }, get noise() { return mix(0, 1); }};
    }

    // ── The network ─────────────────────────────────────────────────────────────────────────────────────────────────

    function bytes(text) {
      const binary = atob(text), out = new Uint8Array(binary.length);
      for (let k = 0; k < out.length; k++) out[k] = binary.charCodeAt(k);
      return out.buffer;
    }

    function half(word) {
      const sign = word & 0x8000 ? -1 : 1, exponent = (word >> 10) & 31, fraction = word & 1023;
      return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
    }

    // Little-endian numbers of 4 or, with `halves`, 2 bytes.
    function numbers(text, halves = false) {
      return halves ? Float32Array.from(new Uint16Array(bytes(text)), half) : new Float32Array(bytes(text));
    }

    // to_i = bias + W from_i for n rows, where bias may differ by row. Blocks of 2 rows × 4 outputs stay in registers.
    function affine(n, from, inputs, weight, outputs, bias, to) {
      for (let i = 0; i < n; i += 2) {
        const x = i * inputs, y = i + 1 < n ? x + inputs : x, u = i * outputs, v = i + 1 < n ? u + outputs : u;
        let o = 0;
        for (; o + 3 < outputs; o += 4) {
          let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
          const w0 = o * inputs, w1 = w0 + inputs, w2 = w1 + inputs, w3 = w2 + inputs;
          for (let k = 0; k < inputs; k++) {
            const p = from[x + k], q = from[y + k];
            const r0 = weight[w0 + k], r1 = weight[w1 + k], r2 = weight[w2 + k], r3 = weight[w3 + k];
            a += p * r0; b += p * r1; c += p * r2; d += p * r3;
            e += q * r0; f += q * r1; g += q * r2; h += q * r3;
          }
          to[u + o] = a + bias[o]; to[u + o + 1] = b + bias[o + 1];
          to[u + o + 2] = c + bias[o + 2]; to[u + o + 3] = d + bias[o + 3];
          to[v + o] = e + bias[o]; to[v + o + 1] = f + bias[o + 1];
          to[v + o + 2] = g + bias[o + 2]; to[v + o + 3] = h + bias[o + 3];
        }
        for (; o < outputs; o++) {
          let [a, e] = [bias[o], bias[o]];
          for (let k = 0; k < inputs; k++) {
            a += from[x + k] * weight[o * inputs + k];
            e += from[y + k] * weight[o * inputs + k];
          }
          to[u + o] = a;
          to[v + o] = e;
        }
      }
    }

    const silu = (value) => value / (1 + Math.exp(-value));

    // h = W_x x + b + W_t φ(t) + W_s (φ(span) - φ(0)) + E[label];  h ← h + SiLU(W_k h + b_k);  ŷ = W_out SiLU(h) + b_out.
    function mlp({dim, width, depth, classes, frequencies, span_frequencies, weights, shapes, halves}) {
      const flat = numbers(weights, halves), parts = {};
      let place = 0;
      for (const [name, size] of shapes) {
        parts[name] = Float64Array.from(flat.subarray(place, place + size));
        place += size;
      }
      const waves = (omegas, t) => {
        const angles = omegas.map((omega) => Math.fround(Math.fround(t) * omega));
        return Float64Array.from([...angles.map(Math.sin), ...angles.map(Math.cos)]);
      };
      // φ is sin and cos of each frequency, all sines first; `plus` is added.
      const feature = (weight, phi, plus) => {
        const out = new Float64Array(width);
        affine(1, phi, phi.length, weight, width, plus, out);
        return out;
      };
      return (x, n, t, label = null, span = null) => {
        let given = feature(parts["from_time.weight"], waves(frequencies, t), parts["from_x.bias"]);
        if (span !== null) {
          const zero = waves(span_frequencies, 0);
          const phi = waves(span_frequencies, span).map((value, k) => value - zero[k]);
          given = feature(parts["from_span.weight"], phi, given);
        }
        const h = new Float64Array(n * width), next = new Float64Array(n * width);
        affine(n, Float64Array.from(x), dim, parts["from_x.weight"], width, given, h); // one type of array: twice as fast
        if (classes) {
          const table = parts["from_label.weight"];
          for (let i = 0; i < n; i++) {
            const own = width * (label === null ? classes : label[i]);
            for (let k = 0; k < width; k++) h[i * width + k] += table[own + k];
          }
        }
        for (let layer = 0; layer < depth; layer++) {
          affine(n, h, width, parts[`blocks.${layer}.weight`], width, parts[`blocks.${layer}.bias`], next);
          for (let k = 0; k < h.length; k++) h[k] += silu(next[k]);
        }
        for (let k = 0; k < h.length; k++) h[k] = silu(h[k]);
        const y = new Float64Array(n * dim);
        affine(n, h, width, parts["out.weight"], dim, parts["out.bias"], y);
        return Float32Array.from(y);
      };
    }

    // What a network of a small table starts from, Σ_k w_k N(m_k, U_k diag(s_k²) U_kᵀ): its x̂₀ and ε̂ (exact/oracle.py),
    // and x_t moved to within 5 standard deviations of the middle, where the network learned (exact/start.py).
    function gaussians({weights, means, bases, stds, classes, middle, axes, spread}) {
      const d = middle.length, numbers = middle.map((_, j) => j);
      const off = (basis, x, mean, alpha) =>
        numbers.map((j) => numbers.reduce((sum, i) => sum + basis[i][j] * (x[i] - alpha * mean[i]), 0));
      const back = (basis, v) => basis.map((row) => row.reduce((sum, u, j) => sum + u * v[j], 0));
      const variances = (own, c) => own.map((std) => (c.alpha * std) ** 2 + c.sigma ** 2);

      function row(x, c, label) {
        const parts = weights.map((weight, k) => {
          const left = classes && label !== null && label < classes ? Number(k === label) : weight;
          const offsets = off(bases[k], x, means[k], c.alpha), v = variances(stds[k], c);
          return {offsets, v, log: Math.log(left) - offsets.reduce((sum, o, j) => sum + (o * o) / v[j] + Math.log(v[j]), 0) / 2};
        });
        const top = Math.max(...parts.map(({log}) => log)), shares = parts.map(({log}) => Math.exp(log - top));
        const total = shares.reduce((a, b) => a + b), x0 = new Array(d).fill(0), noise = new Array(d).fill(0);
        parts.forEach(({offsets, v}, k) => {
          const own = offsets.map((o, j) => ((shares[k] / total) * o) / v[j]);
          const near = back(bases[k], own.map((o, j) => c.alpha * stds[k][j] ** 2 * o)), far = back(bases[k], own);
          numbers.forEach((j) => {
            x0[j] += (shares[k] / total) * means[k][j] + near[j];
            noise[j] += c.sigma * far[j];
          });
        });
        return [x0, noise];
      }

      const over = (x, f) => {
        const out = new Float32Array(x.length);
        for (let i = 0; i < x.length; i += d) out.set(f(Array.from(x.subarray(i, i + d)), i / d), i);
        return out;
      };
      return {
        mix: (a, b, x, c, label) => over(x, (own, i) => {
          const [x0, noise] = row(own, c, label && label[i]);
          return x0.map((value, j) => a * value + b * noise[j]);
        }),
        within: (x, c) => over(x, (own) => {
          const offsets = off(axes, own, middle, c.alpha), far = variances(spread, c).map((v) => 5 * Math.sqrt(v));
          if (offsets.every((o, j) => Math.abs(o) <= far[j])) return own;
          return back(axes, offsets.map((o, j) => Math.min(Math.max(o, -far[j]), far[j]))).map((v, j) => v + c.alpha * middle[j]);
        }),
      };
    }

    // ── The denoiser ────────────────────────────────────────────────────────────────────────────────────────────────

    // estimate's weight: classifier-free guidance towards `label`, in the times (low, high] of `interval`. to: the scales
    // to which the pair leads, for networks that span two times. `evaluations` counts calls of the network.
    function denoiser(model) {
      const scales = path(model.path), {name, ...options} = model.target, row = (c) => TARGETS[name](c, options);
      const network = mlp(model.network), {dim, classes} = model.network, last = scales(1);
      const lost = row(last)[0] === 0 && last.alpha <= model.alpha_min;
      const latest = lost ? scales(scales.timeOf(1 / (model.alpha_min || 1 / 200))) : last;
      const own = {path: scales, dim, classes, spans: model.network.spans, evaluations: 0};

      const base = model.base ? gaussians(model.base) : null;

      function output(c, x, label, span) {
        own.evaluations += 1;
        const n = x.length / dim, inputs = base ? base.within(x, c) : x;
        if (name !== "edm") return added(network(inputs, n, c.t, label, span), c, x, label);
        const scale = 1 / norm(c, options.data_std || 1);
        const clock = Math.log(Math.min(Math.max(ratio(c), Math.exp(-12)), Math.exp(12))) / 4;
        return added(network(combine(scale, inputs, 0, inputs), n, clock, label, span), c, x, label);
      }
      const added = (y, c, x, label) => (base ? combine(1, y, 1, base.mix(...row(c), x, c, label)) : y);

      own.estimate = (x, c, {label = null, to = null, weight = 1, interval = [0, 1]} = {}) => {
        const asked = lost && c.alpha <= model.alpha_min ? latest : c;
        const span = to === null ? null : Math.max(tau(asked) - tau(to), 0);
        let y = output(asked, x, label, span);
        if (label !== null && weight !== 1 && interval[0] < c.t && c.t <= interval[1])
          y = combine(1 - weight, output(asked, x, null, span), weight, y);
        const [a, b] = row(asked), d = asked.alpha * b - asked.sigma * a;
        let found = estimate(x, y, [b / d, -asked.sigma / d], [-a / d, asked.alpha / d]);
        if (asked !== c && c.alpha) {
          const x0 = found.x0;
          found = estimate(x0, combine(1 / c.sigma, x, -c.alpha / c.sigma, x0));
        }
        if (model.bound > 0) {
          const x0 = found.x0, within = x0.map((value) => Math.min(Math.max(value, -model.bound), model.bound));
          const moved = combine(1, x0, -1, within);
          found = estimate(within, c.sigma ? combine(1, found.noise, c.alpha / c.sigma, moved) : found.noise);
        }
        return found;
      };
      return own;
    }

    // ── Noise by address ────────────────────────────────────────────────────────────────────────────────────────────

    const MASK = (1n << 64n) - 1n, GOLDEN = 0x9e3779b97f4a7c15n;

    function mixed(z) {
      z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
      z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
      return z ^ (z >> 31n);
    }

    function key(...address) {
      let state = 0n;
      for (const part of address) {
        const words = typeof part === "string" ? [...new TextEncoder().encode(part), 256] : [part];
        for (const word of words) state = mixed(((state + GOLDEN) & MASK) ^ (BigInt(word) & MASK));
      }
      return state;
    }

    // dim numbers for each of `ids`, by (seed, id, step): SplitMix64, then Box–Muller in double precision.
    function noise(seed, ids, step, dim) {
      const out = new Float32Array(ids.length * dim), stream = key(seed, "draws", step);
      ids.forEach((id, i) => {
        const own = mixed((BigInt(id) + stream) & MASK);
        for (let k = 0; 2 * k < dim; k++) {
          const bits = mixed((own + BigInt(k + 1) * GOLDEN) & MASK);
          const radius = Math.sqrt(-2 * Math.log((Number(bits >> 32n) + 0.5) * 2 ** -32));
          const angle = Number(bits & 0xffffffffn) * (2 * Math.PI * 2 ** -32);
          out[i * dim + 2 * k] = radius * Math.cos(angle);
          if (2 * k + 1 < dim) out[i * dim + 2 * k + 1] = radius * Math.sin(angle);
        }
      });
      return out;
    }

    ebbtide.network = {path, denoiser, estimate, combine, noise, numbers, ratio, tau, TARGETS, PATHS};
  }

  const root = typeof self === "undefined" ? globalThis : self;
  install(root);
  (root.ebbtide.parts = root.ebbtide.parts || []).push(install);
})();
