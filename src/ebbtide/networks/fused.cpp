// What a U-Net on a CPU spends its time on: 3 × 3 convolutions (Winograd) and GroupNorm with SiLU. Called by fused.py.
//
// All maps are channels_last float32 (GroupNorm's also bfloat16), their channels a multiple of 16. y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A over tiles of 4 × 4
// outputs (Lavin & Gray 2015, arXiv:1509.09308, Eq. 8) has 36 products where a direct convolution has 144; ⊙ becomes 36
// matrix products over the channels. Matrices are blocked: (rows, columns) is stored as [columns / 16][rows][16].
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <omp.h>
#include <type_traits>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 12;
#else
constexpr int LANES = 8, ROWS = 6;  // ROWS × 16 sums fill the registers
#endif
constexpr int BLOCK = 16, PER = BLOCK / LANES, POINTS = 36;
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));
typedef uint16_t bf16;  // the upper half of a float
typedef bf16 hvec __attribute__((vector_size(LANES * 2), aligned(2), may_alias));

vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
vec load(const bf16* p) { return (vec)(__builtin_convertvector(*reinterpret_cast<const hvec*>(p), uvec) << 16); }
void store(bf16* p, vec x) {  // rounded to the nearest, to even; NaN stays NaN
  const uvec bits = (uvec)x, odd = bits >> 16 & 1, rounded = (bits + 0x7fff + odd) >> 16;
  const uvec whole = (uvec)(x == x);
  *reinterpret_cast<hvec*>(p) = __builtin_convertvector((rounded & whole) | (0x7fc0u & ~whole), hvec);
}

// The tiles' polynomials are taken at 0, ±a, ±b and ∞. With these, rounding errors are half of those with 1 and 2.
constexpr double a = 0.75, b = 1.5;
constexpr float a1 = a, a2 = a * a, a3 = a * a * a, b1 = b, b2 = b * b, b3 = b * b * b, ab = a * a * b * b;
constexpr float na = 0.5 / (a * a * (a * a - b * b)), nb = 0.5 / (b * b * (b * b - a * a)), n0 = 1 / (a * a * b * b);

struct Input {  // Bᵀ: 6 inputs → 6 points
  static constexpr int from = 6, to = 6;
  static void apply(const vec* d, ptrdiff_t s, vec* o) {
    vec d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
    vec ea = d4 - b2 * d2, oa = a1 * (d3 - b2 * d1), eb = d4 - a2 * d2, ob = b1 * (d3 - a2 * d1);
    o[0] = ab * d0 - (a2 + b2) * d2 + d4, o[1] = ea + oa, o[2] = ea - oa, o[3] = eb + ob, o[4] = eb - ob;
    o[5] = ab * d1 - (a2 + b2) * d3 + d5;
  }
};
struct Output {  // Aᵀ: 6 points → 4 outputs
  static constexpr int from = 6, to = 4;
  static void apply(const vec* m, ptrdiff_t s, vec* o) {
    vec p = m[s] + m[2 * s], q = m[s] - m[2 * s], r = m[3 * s] + m[4 * s], t = m[3 * s] - m[4 * s];
    o[0] = m[0] + p + r, o[1] = a1 * q + b1 * t, o[2] = a2 * p + b2 * r, o[3] = a3 * q + b3 * t + m[5 * s];
  }
};
struct Gradient {  // A: 4 gradients of outputs → 6 points
  static constexpr int from = 4, to = 6;
  static void apply(const vec* y, ptrdiff_t s, vec* o) {
    vec y0 = y[0], y1 = y[s], y2 = y[2 * s], y3 = y[3 * s];
    vec ea = y0 + a2 * y2, oa = a1 * y1 + a3 * y3, eb = y0 + b2 * y2, ob = b1 * y1 + b3 * y3;
    o[0] = y0, o[1] = ea + oa, o[2] = ea - oa, o[3] = eb + ob, o[4] = eb - ob, o[5] = y3;
  }
};
struct Filter {  // G: 3 weights → 6 points
  static constexpr int from = 3, to = 6;
  static void apply(const vec* g, ptrdiff_t s, vec* o) {
    vec g0 = g[0], g1 = g[s], g2 = g[2 * s];
    vec ea = na * (g0 + a2 * g2), oa = na * a1 * g1, eb = nb * (g0 + b2 * g2), ob = nb * b1 * g1;
    o[0] = n0 * g0, o[1] = ea + oa, o[2] = ea - oa, o[3] = eb + ob, o[4] = eb - ob, o[5] = g2;
  }
};
struct FilterGradient {  // Gᵀ: 6 points → 3 gradients of weights
  static constexpr int from = 6, to = 3;
  static void apply(const vec* u, ptrdiff_t s, vec* o) {
    vec p = na * (u[s] + u[2 * s]), q = na * (u[s] - u[2 * s]);
    vec r = nb * (u[3 * s] + u[4 * s]), t = nb * (u[3 * s] - u[4 * s]);
    o[0] = n0 * u[0] + p + r, o[1] = a1 * q + b1 * t, o[2] = a2 * p + b2 * r + u[5 * s];
  }
};

// o (to × to) = M d Mᵀ for d (from × from), LANES channels at once.
template <class M>
inline void transform(const vec* d, vec* o) {
  vec columns[M::from * M::to], line[6];
  for (int j = 0; j < M::from; ++j) {
    M::apply(d + j, M::from, line);
    for (int i = 0; i < M::to; ++i) columns[i * M::from + j] = line[i];
  }
  for (int i = 0; i < M::to; ++i) M::apply(columns + i * M::from, 1, o + i * M::to);
}

// c (R rows × 16) (+)= Σ a[row][k] b[k][0..15]. A row's entries are `step` apart, and each `inner` of them `jump`.
template <int R>
void kernel(const float* a, const ptrdiff_t* row, int outer, ptrdiff_t jump, int inner, ptrdiff_t step, const float* b,
            float* c, bool add) {
  vec sum[R][PER];
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < PER; ++v) sum[i][v] = add ? load(c + i * BLOCK + v * LANES) : vec{};
  for (int o = 0; o < outer; ++o, a += jump) {
    const float* p = a;
    for (int k = 0; k < inner; ++k, p += step, b += BLOCK) {
      vec line[PER];
      for (int v = 0; v < PER; ++v) line[v] = load(b + v * LANES);
      for (int i = 0; i < R; ++i)
        for (int v = 0; v < PER; ++v) sum[i][v] += p[row[i]] * line[v];
    }
  }
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < PER; ++v) store(c + i * BLOCK + v * LANES, sum[i][v]);
}
using Kernel = void (*)(const float*, const ptrdiff_t*, int, ptrdiff_t, int, ptrdiff_t, const float*, float*, bool);
constexpr Kernel KERNELS[] = {nullptr,    kernel<1>, kernel<2>, kernel<3>,
                              kernel<4>,  kernel<5>, kernel<6>
#ifdef __AVX512F__
                              , kernel<7>, kernel<8>, kernel<9>, kernel<10>, kernel<11>, kernel<12>
#endif
};

// Uninitialised memory that a thread keeps from call to call: fresh pages cost as much as filling them.
float* scratch(int which, size_t floats) {
  struct Free { void operator()(float* p) const { std::free(p); } };
  static thread_local std::unique_ptr<float, Free> memory[3];
  static thread_local size_t size[3];
  if (size[which] < floats) {
    memory[which].reset(static_cast<float*>(std::aligned_alloc(64, (floats * 4 + 63) / 64 * 64)));
    size[which] = floats;
  }
  return memory[which].get();
}

// Floats from one point's matrix to the next; without the 16 all 36 would fall on the same few places of the cache.
size_t plane(int rows, int columns) { return (size_t)rows * columns + BLOCK; }

struct Map {
  int height, width, channels;
  int across() const { return (width + 3) / 4; }
  int tiles() const { return (height + 3) / 4 * across(); }
};

// The tile of that index, starting `margin` before its place, transformed by M into a row of out (36, rows, channels).
template <class M>
void tile_in(const float* x, Map m, int index, int margin, float* out, int rows, int row) {
  const int n = index / m.tiles(), place = index % m.tiles();
  const int i0 = place / m.across() * 4 - margin, j0 = place % m.across() * 4 - margin;
  const float* image = x + (size_t)n * m.height * m.width * m.channels;
  for (int c = 0; c < m.channels; c += LANES) {
    vec d[M::from * M::from], o[M::to * M::to];
    for (int i = 0; i < M::from; ++i)
      for (int j = 0; j < M::from; ++j) {
        const int y = i0 + i, z = j0 + j;
        const bool inside = y >= 0 && y < m.height && z >= 0 && z < m.width;
        d[i * M::from + j] = inside ? load(image + ((size_t)y * m.width + z) * m.channels + c) : vec{};
      }
    transform<M>(d, o);
    float* p = out + ((size_t)(c / BLOCK) * rows + row) * BLOCK + c % BLOCK;
    for (int e = 0; e < POINTS; ++e) store(p + e * plane(rows, m.channels), o[e]);
  }
}

void tile_out(const float* in, int rows, int row, const float* bias, float* y, Map m, int index) {
  const int n = index / m.tiles(), place = index % m.tiles(), i0 = place / m.across() * 4, j0 = place % m.across() * 4;
  float* image = y + (size_t)n * m.height * m.width * m.channels;
  const int high = std::min(4, m.height - i0), wide = std::min(4, m.width - j0);
  for (int c = 0; c < m.channels; c += LANES) {
    vec d[POINTS], o[16];
    const float* p = in + ((size_t)(c / BLOCK) * rows + row) * BLOCK + c % BLOCK;
    for (int e = 0; e < POINTS; ++e) d[e] = load(p + e * plane(rows, m.channels));
    transform<Output>(d, o);
    const vec shift = bias ? load(bias + c) : vec{};
    for (int i = 0; i < high; ++i)
      for (int j = 0; j < wide; ++j)
        store(image + ((size_t)(i0 + i) * m.width + j0 + j) * m.channels + c, o[i * 4 + j] + shift);
  }
}

// u (36, in, out), blocked = G g Gᵀ.
void filters(const float* g, ptrdiff_t by_out, ptrdiff_t by_in, ptrdiff_t by_row, ptrdiff_t by_column, int in, int out,
             float* u, int threads) {
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int k = 0; k < out; k += BLOCK)
    for (int c = 0; c < in; c += BLOCK) {
      float place[BLOCK][9][BLOCK];
      for (int i = 0; i < 9; ++i)
        for (int r = 0; r < BLOCK; ++r)
          for (int l = 0; l < BLOCK; ++l)
            place[r][i][l] = g[(k + l) * by_out + (c + r) * by_in + i / 3 * by_row + i % 3 * by_column];
      for (int r = 0; r < BLOCK; ++r)
        for (int l = 0; l < BLOCK; l += LANES) {
          vec d[9], o[POINTS];
          for (int i = 0; i < 9; ++i) d[i] = load(&place[r][i][l]);
          transform<Filter>(d, o);
          float* p = u + (size_t)k * in + (c + r) * BLOCK + l;
          for (int e = 0; e < POINTS; ++e) store(p + e * plane(in, out), o[e]);
        }
    }
}

vec sigmoid(vec z) {  // 1 / (1 + e^-z); e^x = 2ⁿ eʳ with |r| ≤ ln 2 / 2 and six terms of its series
  vec x = -z;
  x = x < -87.0f ? vec{} - 87.0f : x > 87.0f ? vec{} + 87.0f : x;
  const vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounded to the nearest whole number
  const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  vec e = 1.0f / 720 + vec{};
  for (float inverse : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) e = e * r + inverse;
  union { ivec whole; vec power; } two = {(__builtin_convertvector(n, ivec) + 127) << 23};
  return 1.0f / (1.0f + e * two.power);
}

constexpr int WIDEST = 1024;
struct Sums {  // per channel, over 64 pixels at a time, for small errors on large maps
  float part[WIDEST] = {}, total[WIDEST] = {};
  void add(int c, vec x) { store(part + c, load(part + c) + x); }
  void close(int channels) {
    for (int c = 0; c < channels; ++c) total[c] += part[c], part[c] = 0;
  }
};

// Channels [first, last) of one image, in whole groups and whole vectors; size: channels of a group.
struct Slice {
  int pixels, channels, first, last, size;
  template <class F, class... S>
  void each(F f, S&... sums) const {  // f(offset into the image, channel within the slice)
    for (int p = 0; p < pixels; ++p) {
      for (int c = first; c < last; c += LANES) f((size_t)p * channels + c, c - first);
      if (p % 64 == 63 || p == pixels - 1) (sums.close(last - first), ...);
    }
  }
  void over_groups(float* sums, float divisor) const {  // each channel's sum → its group's sum / divisor
    for (int g = 0; g < last - first; g += size) {
      double total = 0;
      for (int c = g; c < g + size; ++c) total += sums[c];
      std::fill(sums + g, sums + g + size, (float)(total / divisor));
    }
  }
};

template <class F>
void each_slice(int n, int pixels, int channels, int groups, int slice, int threads, F f) {
#pragma omp parallel for collapse(2) num_threads(threads)
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < channels; c += slice) f(i, Slice{pixels, channels, c, c + slice, channels / groups});
}

// y = silu(x̂ scale + shift), x̂ = (x - mean) rstd per image and group; scale, shift, mean and rstd are (n, channels).
template <class T>
void forward(const T* x, const float* scale, const float* shift, T* y, float* mean, float* rstd, int n, int pixels,
             int channels, int groups, int slice, float eps, int threads) {
  each_slice(n, pixels, channels, groups, slice, threads, [&](int i, Slice s) {
    const size_t image = (size_t)i * pixels * channels, row = (size_t)i * channels + s.first;
    const float count = (float)s.size * pixels;
    Sums sums, squares;
    float *m = sums.total, *v = squares.total;
    s.each([&](size_t at, int c) { sums.add(c, load(x + image + at)); }, sums);
    s.over_groups(m, count);
    s.each(
        [&](size_t at, int c) {
          const vec d = load(x + image + at) - load(m + c);
          squares.add(c, d * d);
        },
        squares);
    s.over_groups(v, count);
    for (int c = 0; c < slice; ++c) {
      const float r = 1 / std::sqrt(v[c] + eps), a = scale[row + c] * r;
      mean[row + c] = m[c], rstd[row + c] = r;
      v[c] = a, m[c] = shift[row + c] - m[c] * a;
    }
    s.each([&](size_t at, int c) {
      const vec z = load(x + image + at) * load(v + c) + load(m + c);
      store(y + image + at, z * sigmoid(z));
    });
  });
}

// dx, and the gradients of scale and shift per image and channel.
template <class T>
void backward(const T* x, const T* dy, const float* scale, const float* shift, const float* mean, const float* rstd,
              T* dx, float* dscale, float* dshift, int n, int pixels, int channels, int groups, int slice,
              int threads) {
  each_slice(n, pixels, channels, groups, slice, threads, [&](int i, Slice s) {
    const size_t image = (size_t)i * pixels * channels, row = (size_t)i * channels + s.first;
    Sums slopes, shifts;
    float p[WIDEST], q[WIDEST];
    const auto normed = [&](size_t at, int c) {
      return (load(x + image + at) - load(mean + row + c)) * load(rstd + row + c);
    };
    const auto through_silu = [&](size_t at, int c, vec xh) {
      const vec z = xh * load(scale + row + c) + load(shift + row + c), g = sigmoid(z);
      return load(dy + image + at) * g * (1 + z * (1 - g));
    };
    constexpr bool kept = std::is_same_v<T, float>;  // in dx, which would round the rest
    s.each(
        [&](size_t at, int c) {
          const vec xh = normed(at, c), dz = through_silu(at, c, xh);
          if (kept) store(dx + image + at, dz);
          slopes.add(c, dz * xh), shifts.add(c, dz);
        },
        slopes, shifts);
    for (int c = 0; c < slice; ++c) {
      dscale[row + c] = slopes.total[c], dshift[row + c] = shifts.total[c];
      p[c] = scale[row + c] * slopes.total[c], q[c] = scale[row + c] * shifts.total[c];
    }
    s.over_groups(p, (float)s.size * pixels), s.over_groups(q, (float)s.size * pixels);
    s.each([&](size_t at, int c) {  // dx = rstd (scale dz - mean of scale dz - x̂ mean of scale dz x̂)
      const vec xh = normed(at, c), dz = kept ? load(dx + image + at) : through_silu(at, c, xh);
      store(dx + image + at, load(rstd + row + c) * (load(scale + row + c) * dz - load(q + c) - xh * load(p + c)));
    });
  });
}

}  // namespace

extern "C" {

#define NORM_SILU(FORWARD, BACKWARD, T)                                                                                \
  void FORWARD(const T* x, const float* scale, const float* shift, T* y, float* mean, float* rstd, int n, int pixels,  \
               int channels, int groups, int slice, float eps, int threads) {                                          \
    forward(x, scale, shift, y, mean, rstd, n, pixels, channels, groups, slice, eps, threads);                         \
  }                                                                                                                    \
  void BACKWARD(const T* x, const T* dy, const float* scale, const float* shift, const float* mean, const float* rstd, \
                T* dx, float* dscale, float* dshift, int n, int pixels, int channels, int groups, int slice,           \
                int threads) {                                                                                         \
    backward(x, dy, scale, shift, mean, rstd, dx, dscale, dshift, n, pixels, channels, groups, slice, threads);        \
  }
NORM_SILU(norm_silu, norm_silu_gradient, float)
NORM_SILU(norm_silu_bf16, norm_silu_gradient_bf16, bf16)

// y (n, h, w, out) = the 3 × 3 convolution of x (n, h, w, in), padding 1, with weights g, plus bias or nothing.
// g's strides, between outputs, inputs, rows and columns, are in floats, here and below.
void winograd(const float* x, const float* g, ptrdiff_t by_out, ptrdiff_t by_in, ptrdiff_t by_row, ptrdiff_t by_column,
              const float* bias, float* y, int n, int height, int width, int in, int out, int threads) {
  const Map from{height, width, in}, to{height, width, out};
  const int total = n * from.tiles();
  const int share = (total + threads - 1) / threads, most = 96;
  const int parts = (share + most - 1) / most;
  const int rows = ((share + parts - 1) / parts + ROWS - 1) / ROWS * ROWS;
  float* u = scratch(2, POINTS * plane(in, out));
  filters(g, by_out, by_in, by_row, by_column, in, out, u, threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int first = 0; first < total; first += rows) {
    const int count = std::min(rows, total - first);
    float *v = scratch(0, POINTS * plane(rows, in)), *m = scratch(1, POINTS * plane(rows, out));
    for (int t = 0; t < count; ++t) tile_in<Input>(x, from, first + t, 1, v, rows, t);
    ptrdiff_t row[ROWS];
    for (int i = 0; i < ROWS; ++i) row[i] = i * BLOCK;
    for (int e = 0; e < POINTS; ++e)
      for (int k = 0; k < out; k += BLOCK)
        for (int t = 0; t < count; t += ROWS)
          KERNELS[std::min(ROWS, count - t)](
              v + e * plane(rows, in) + t * BLOCK, row, in / BLOCK, (ptrdiff_t)rows * BLOCK, BLOCK, 1,
              u + e * plane(in, out) + (size_t)k * in, m + e * plane(rows, out) + (size_t)k * rows + t * BLOCK, false);
    for (int t = 0; t < count; ++t) tile_out(m, rows, t, bias, y, to, first + t);
  }
}

// The gradient of the weights: dg = Gᵀ[Σ over tiles (A dy Aᵀ) ⊙ (Bᵀ x B)]G.
void winograd_gradient(const float* x, const float* dy, float* g, ptrdiff_t by_out, ptrdiff_t by_in, ptrdiff_t by_row,
                       ptrdiff_t by_column, int n, int height, int width, int in, int out, int threads) {
  const Map from{height, width, in}, to{height, width, out};
  const int total = n * from.tiles(), rows = std::min(total, 256);
  float *v = scratch(0, POINTS * (plane(rows, in) + plane(rows, out))), *m = v + POINTS * plane(rows, in);
  float* du = scratch(1, POINTS * plane(in, out));  // (36, out, in)
#pragma omp parallel num_threads(threads)
  {
    for (int first = 0; first < total; first += rows) {
      const int count = std::min(rows, total - first);
#pragma omp for
      for (int t = 0; t < count; ++t) {
        tile_in<Input>(x, from, first + t, 1, v, rows, t);
        tile_in<Gradient>(dy, to, first + t, 0, m, rows, t);
      }
#pragma omp for collapse(2)
      for (int e = 0; e < POINTS; ++e)
        for (int c = 0; c < in; c += BLOCK)
          for (int k = 0; k < out; k += ROWS) {
            ptrdiff_t row[ROWS];
            const int high = std::min(ROWS, out - k);
            for (int i = 0; i < high; ++i) row[i] = (ptrdiff_t)((k + i) / BLOCK) * rows * BLOCK + (k + i) % BLOCK;
            KERNELS[high](m + e * plane(rows, out), row, 1, 0, count, BLOCK, v + e * plane(rows, in) + (size_t)c * rows,
                          du + e * plane(in, out) + (size_t)c * out + k * BLOCK, first > 0);
          }
    }
#pragma omp for collapse(2)
    for (int c0 = 0; c0 < in; c0 += BLOCK)
      for (int k = 0; k < out; ++k)
        for (int c = c0; c < c0 + BLOCK; c += LANES) {
          vec d[POINTS], o[9];
          const float* p = du + (size_t)c0 * out + k * BLOCK + c % BLOCK;
          for (int e = 0; e < POINTS; ++e) d[e] = load(p + e * plane(in, out));
          transform<FilterGradient>(d, o);
          for (int i = 0; i < 9; ++i)
            for (int l = 0; l < LANES; ++l)
              g[k * by_out + (c + l) * by_in + i / 3 * by_row + i % 3 * by_column] = o[i][l];
        }
  }
}

}
