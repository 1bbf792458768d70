// The native filter: users x candidates on one core, everything of a pair in registers.
//
// Candidates lie in cells of 32, lane by lane (lime_model/scoring/cells.py packs them). A block of
// users meets one cell at a time, so a cell stays in L1 and the users' factors stream from L2.
//
// int8 pass.  Link weights are non-negative and sum to 1: as u8 that sum to exactly 255 they meet
// s8 links with |g| <= 127 and no sum leaves int16 (255 * 127 = 32,385), so two instructions do 32
// multiply-adds (four links at once and int32 sums with VNNI: simd.h). Per user and hidden unit f, with
// `unit` the worth of one int16 step:
//
//     x = unit * (sum_l a8 g8 + m16 + round(b16 k16 / 2^15))     h = max(x, 0)
//
// Negative saturation is harmless (h is 0 either way), positive overflow is excluded by the choice
// of `unit`. The bound |int8 - published| <= base + alpha * |a - a8 / 255|_2 adds up, for every f,
// the residual of G (a convex combination of its rows, so at most the worst row), of B, of w, and
// (a - a8 / 255) G by Cauchy-Schwarz, column by column or by the spectral norm, whichever is less.
//
// bf16 pass.  Two links at a time into fp32 sums (vdpbf16ps). G is centred on its mean over links, m_f:
//
//     x = B + m + sum_l a16 g16      |bf16 - published| <= base + alpha * |a - a16|_2
//
// with the same two bounds as above; what the instruction flushes to zero is added to `base`. The
// link weights of a cell are rounded once for all users of a block, and their residual measured then.
//
// fp32 pass.  Survivors, or whole cells while there is no threshold yet; its bound eps32 is that of
// lime_model/scoring/backends/tiled.py. What is left is rescored canonically by `lime_base`.
//
// Letters: U users, L links, F hidden, E dot width, K wanted.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "simd.h"

namespace {

using V = LIME_ISA; // one of the structs of simd.h

constexpr int BLOCK = 32; // users that share a pass: their int8 factors fit L2
constexpr double UP = 1.0 + 1e-4; // bounds are rounded up, fp32 arithmetic on them included

struct Shape {
  int links, hidden, dot;
  int pairs() const { return (links + 1) / 2; }
  int steps() const { return (links + V::links - 1) / V::links; } // of the int8 product
  int units() const { return (hidden + NF - 1) / NF * NF; }
  // Offsets in floats: beta, norm, d, b16, a8 | b, a
  size_t d() const { return 2 * W; }
  size_t b16() const { return d() + size_t(dot) * W; }
  size_t a8() const { return b16() + size_t(units()) * W / 2; }
  size_t b() const { return a8() + size_t(pairs()) * W / 2; }
  size_t a() const { return b() + size_t(units()) * W; }
  size_t size() const { return a() + size_t(links) * W; }
};

struct Hit {
  float score;
  int64_t row; // -1: an item of the memory, which only raises the threshold
};

// The K best approximations so far, and every pair that may still belong to the K best.
struct Leaders {
  std::vector<Hit> hits;
  size_t k = 1, limit = 1;
  float threshold = -std::numeric_limits<float>::infinity(); // K-th best - 2 eps
  double slack = 0;

  void offer(Hit hit) {
    if (hit.score < threshold) return;
    hits.push_back(hit);
    if (hits.size() >= limit) refresh();
  }
  void refresh() {
    if (hits.size() >= k) {
      std::nth_element(hits.begin(), hits.begin() + (k - 1), hits.end(),
                       [](const Hit &x, const Hit &y) { return x.score > y.score; });
      const double kth = hits[k - 1].score;
      threshold = std::nextafter(float(kth - slack), -std::numeric_limits<float>::infinity());
      hits.erase(std::remove_if(hits.begin() + k, hits.end(), [&](const Hit &h) { return h.score < threshold; }),
                 hits.end());
    }
    limit = std::max(k, hits.size() + std::max<size_t>(32, hits.size() / 2));
  }
};

struct User {
  const float *g, *e; // [L, F], [E]
  const int64_t *seen, *seen_end;
  Leaders leaders;
  std::vector<int32_t> g8;   // [F / NF, steps, NF]: two links, twice, or four links, for a 32-bit broadcast
  std::vector<int32_t> f16;  // [F, 2]: m16 and k16, each twice
  std::vector<int32_t> w16;  // [F / 2]: two hidden units
  float worth = 0;           // of one step of sum w16 h16
  std::vector<uint32_t> g16; // [F / NF, pairs, NF]: two links in bf16
  std::vector<float> mean;   // [F]
  float alpha = 0, base = 0; // of the bound of the first pass
};

enum First { FP32, INT8, BF16 }; // the pass that a pair meets first

constexpr float FLUSHED = 0x1p-126f; // the smallest normal float: vdpbf16ps takes less for zero

// The nearest bf16, ties to even, as the upper half of a float.
uint32_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
}

float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The link weights of one cell in bf16.
struct Halves {
  std::vector<uint32_t> a; // [pairs, 32]
  float norm[W];           // |a - a16|_2 of each candidate, rounded up

  void fill(const float *cell, const Shape &s) {
    a.assign(size_t(s.pairs()) * W, 0);
    float square[W] = {};
    for (int l = 0; l < s.links; l++) {
      const float *from = cell + s.a() + size_t(l) * W;
      uint32_t *to = &a[size_t(l / 2) * W];
      for (int i = 0; i < W; i++) {
        const uint32_t half = to_bf16(from[i]);
        const float gone = from[i] - from_bits(half);
        square[i] += gone * gone;
        to[i] |= l % 2 ? half : half >> 16;
      }
    }
    for (int i = 0; i < W; i++) norm[i] = (std::sqrt(square[i]) + s.links * 1e-20f) * float(UP);
  }
};

double spectral_norm(const std::vector<double> &m, int rows, int cols) {
  // ||M|| <= ||(M M')^4||_F^(1/8): an upper bound, at most rows^(1/16) above the norm.
  std::vector<double> gram(size_t(rows) * rows), next(gram.size());
  double trace = 0;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j <= i; j++) {
      double sum = 0;
      for (int c = 0; c < cols; c++) sum += m[size_t(i) * cols + c] * m[size_t(j) * cols + c];
      gram[size_t(i) * rows + j] = gram[size_t(j) * rows + i] = sum;
      if (i == j) trace += sum;
    }
  if (!(trace > 0)) return 0;
  for (double &x : gram) x /= trace; // eigenvalues in [0, 1]
  for (int squarings = 0; squarings < 2; squarings++) {
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < rows; j++) {
        double sum = 0;
        for (int c = 0; c < rows; c++) sum += gram[size_t(i) * rows + c] * gram[size_t(c) * rows + j];
        next[size_t(i) * rows + j] = sum;
      }
    gram.swap(next);
  }
  double square = 0;
  for (double x : gram) square += x * x;
  return std::sqrt(trace) * std::pow(square, 1.0 / 16) * UP;
}

// Quantise one user and bound what it costs. `step`, `bmax` [F] describe B over the whole bank,
// `drift` is the largest |sum of link weights - 1| in it.
void quantise(User &u, const Shape &s, const double *w, const double *step, const double *bmax, double drift,
              double eps32) {
  const int L = s.links, F = s.hidden, P = s.steps(), N = s.units();
  u.g8.assign(size_t(N) * P, 0);
  u.f16.assign(size_t(N) * 2, 0);
  u.w16.assign(N / 2, 0);
  std::vector<double> unit(F), top(F), residual(L, 0.0), centred(size_t(L) * F);
  double total = 0, largest = 0, base = 0, columns = 0;
  for (int f = 0; f < F; f++) {
    double high = u.g[f], low = u.g[f], mean = 0;
    for (int l = 0; l < L; l++) {
      const double g = u.g[size_t(l) * F + f];
      high = std::max(high, g), low = std::min(low, g), mean += g / L;
    }
    const double middle = (high + low) / 2, radius = (high - low) / 2, reach = std::max(high, 0.0) + bmax[f];
    double one = std::max({radius / (127.0 * 255.0), std::max(std::abs(high), std::abs(low)) / 32000, reach / 32000,
                           bmax[f] / 32000});
    if (!(one > 0)) one = 1;
    unit[f] = one, top[f] = reach / one + 130;
    const int m16 = int(std::lrint(middle / one)), k16 = int(std::lrint(step[f] / one * 32768));
    u.f16[2 * f] = int32_t(uint32_t(uint16_t(m16)) * 0x10001u);
    u.f16[2 * f + 1] = int32_t(uint32_t(uint16_t(k16)) * 0x10001u);
    double norm = 0;
    for (int l = 0; l < L; l++) {
      const double g = u.g[size_t(l) * F + f], c = g - mean;
      const int q = int(std::lrint((g - middle) / (255 * one)));
      auto *bytes = reinterpret_cast<int8_t *>(&u.g8[(size_t(f / NF) * P + l / V::links) * NF + f % NF]);
      for (int byte = l % V::links; byte < 4; byte += V::links) bytes[byte] = int8_t(q);
      residual[l] += std::abs(w[f]) * std::abs(g - one * (255.0 * q + m16));
      centred[size_t(l) * F + f] = std::abs(w[f]) * c;
      norm += c * c;
    }
    columns += std::abs(w[f]) * std::sqrt(norm);
    base += std::abs(w[f]) * (step[f] / 2 + one + drift * std::abs(mean));
    total += std::abs(w[f]) * one, largest = std::max(largest, std::abs(w[f]) * one);
  }
  const double worth = std::max({total / 60000, largest / 32767, 1e-300});
  for (int f = 0; f < F; f++) {
    const int q = int(std::lrint(w[f] * unit[f] / worth));
    reinterpret_cast<int16_t *>(u.w16.data())[f] = int16_t(q);
    base += std::abs(w[f] * unit[f] - worth * q) * top[f];
  }
  u.worth = float(worth);
  base += *std::max_element(residual.begin(), residual.end()) + 6 * eps32;
  u.base = float(base * UP);
  u.alpha = float(std::min(columns, std::sqrt(double(F)) * spectral_norm(centred, L, F)) * UP);
}

// Round one user to bf16 and bound what it costs; `drift` as for `quantise`.
void halve(User &u, const Shape &s, const double *w, double drift, double eps32) {
  const int L = s.links, F = s.hidden, P = s.pairs(), N = s.units();
  u.g16.assign(size_t(N) * P, 0);
  u.mean.assign(N, 0);
  std::vector<double> residual(L, 0.0), rounded(size_t(L) * F);
  double base = 0, columns = 0;
  for (int f = 0; f < F; f++) {
    double mean = 0, norm = 0, largest = 0;
    for (int l = 0; l < L; l++) mean += double(u.g[size_t(l) * F + f]) / L;
    u.mean[f] = float(mean);
    for (int l = 0; l < L; l++) {
      const double centred = double(u.g[size_t(l) * F + f]) - u.mean[f];
      const uint32_t half = to_bf16(float(centred));
      const double g16 = from_bits(half);
      u.g16[(size_t(f / NF) * P + l / 2) * NF + f % NF] |= l % 2 ? half : half >> 16;
      residual[l] += std::abs(w[f]) * std::abs(centred - g16);
      rounded[size_t(l) * F + f] = std::abs(w[f]) * g16;
      norm += g16 * g16, largest = std::max(largest, std::abs(g16));
    }
    columns += std::abs(w[f]) * std::sqrt(norm);
    base += std::abs(w[f]) * (drift * std::abs(double(u.mean[f])) + (2 * L + 4) * (1 + largest) * double(FLUSHED));
  }
  base += *std::max_element(residual.begin(), residual.end()) * (1 + drift) + 6 * eps32;
  u.base = float(base * UP);
  u.alpha = float(std::min(columns, std::sqrt(double(F)) * spectral_norm(rounded, L, F)) * UP);
}

// Which of the 32 candidates may reach the threshold: bit i for candidate i.
uint32_t pass_bf16(const float *cell, const Halves &halves, const Shape &s, const User &u, const float *w) {
  const int P = s.pairs(), N = s.units();
  const V::F alpha = V::every(u.alpha), limit = V::every(u.leaders.threshold - u.base);
  uint32_t mask = 0;
  for (int lane = 0; lane < W; lane += 2 * V::lanes) {
    V::F low = V::fma(alpha, V::load(halves.norm + lane), V::load(cell + lane));
    V::F high = V::fma(alpha, V::load(halves.norm + lane + V::lanes), V::load(cell + lane + V::lanes));
    for (int k = 0; k < s.dot; k++) {
      const V::F e = V::every(u.e + k);
      const float *d = cell + s.d() + size_t(k) * W + lane;
      low = V::fma(V::load(d), e, low), high = V::fma(V::load(d + V::lanes), e, high);
    }
    const uint32_t *g = u.g16.data();
    for (int f = 0; f < N; f += NF) {
      const float *b = cell + s.b() + size_t(f) * W + lane;
      const uint32_t *a = halves.a.data() + lane;
      V::F x[NF], y[NF];
#pragma GCC unroll 4
      for (int j = 0; j < NF; j++) {
        const V::F mean = V::every(&u.mean[f + j]);
        x[j] = V::add(V::load(b + size_t(j) * W), mean), y[j] = V::add(V::load(b + size_t(j) * W + V::lanes), mean);
      }
      for (int p = 0; p < P; p++, g += NF, a += W) {
        const V::H left = V::halves(a), right = V::halves(a + V::lanes);
#pragma GCC unroll 4
        for (int j = 0; j < NF; j++) {
          const V::H gg = V::every_half(g + j);
          x[j] = V::dot16(x[j], left, gg), y[j] = V::dot16(y[j], right, gg);
        }
      }
#pragma GCC unroll 4
      for (int j = 0; j < NF; j++) {
        const V::F ww = V::every(w + f + j);
        low = V::fma(ww, V::max(x[j], V::zero()), low), high = V::fma(ww, V::max(y[j], V::zero()), high);
      }
    }
    mask |= V::reaches(low, limit) << lane;
    mask |= V::reaches(high, limit) << (lane + V::lanes);
  }
  return mask;
}

// Which of the 32 candidates may reach the threshold: bit i for candidate i.
uint32_t pass_int8(const float *cell, const Shape &s, const User &u) {
  constexpr int R = W / V::lanes;
  const auto *weights = reinterpret_cast<const int8_t *>(cell + s.a8());
  const auto *b16 = reinterpret_cast<const int16_t *>(cell + s.b16());
  const int P = s.pairs(), N = s.units();
  V::S sums = V::none();
  const int32_t *g = u.g8.data();
  for (int f = 0; f < N; f += NF, g += size_t(s.steps()) * NF) {
    V::I x[NF];
    V::multiply(x, &u.f16[2 * f], weights, P, g);
#pragma GCC unroll 4
    for (int j = 0; j < NF; j++) x[j] = V::activate(x[j], b16 + size_t(f + j) * W, u.f16[2 * (f + j) + 1]);
#pragma GCC unroll 2
    for (int j = 0; j < NF; j += 2) V::add_products(sums, x[j], x[j + 1], u.w16[(f + j) / 2]);
  }
  V::F hidden[R], part[R];
  V::floats(sums, hidden);
  const V::F alpha = V::every(u.alpha), worth = V::every(u.worth), limit = V::every(u.leaders.threshold - u.base);
  for (int i = 0; i < R; i++)
    part[i] = V::fma(alpha, V::load(cell + W + V::lanes * i), V::load(cell + V::lanes * i));
  for (int k = 0; k < s.dot; k++) {
    const V::F e = V::every(u.e + k);
    const float *d = cell + s.d() + size_t(k) * W;
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) part[i] = V::fma(V::load(d + V::lanes * i), e, part[i]);
  }
  uint32_t mask = 0;
  for (int i = 0; i < R; i++)
    mask |= V::reaches(V::fma(hidden[i], worth, part[i]), limit) << (V::lanes * i);
  return mask;
}

inline V::F dot_part(const float *cell, const Shape &s, const float *e, int lane) {
  V::F sum = V::load(cell + lane);
  for (int k = 0; k < s.dot; k++) sum = V::fma(V::load(cell + s.d() + size_t(k) * W + lane), V::every(e + k), sum);
  return sum;
}

// Adds the outputs of N hidden units from f on to the scores of 2 V::lanes candidates.
template <int N>
inline void hidden_units(const float *a, const float *b, int L, int F, int f, const float *g, const float *w, V::F &low,
                         V::F &high) {
  V::F x[N], y[N];
#pragma GCC unroll 4
  for (int j = 0; j < N; j++) x[j] = V::load(b + size_t(f + j) * W), y[j] = V::load(b + size_t(f + j) * W + V::lanes);
  for (int l = 0; l < L; l++) {
    const V::F p = V::load(a + size_t(l) * W), q = V::load(a + size_t(l) * W + V::lanes);
#pragma GCC unroll 4
    for (int j = 0; j < N; j++) {
      const V::F gg = V::every(g + size_t(l) * F + f + j);
      x[j] = V::fma(p, gg, x[j]), y[j] = V::fma(q, gg, y[j]);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < N; j++) {
    const V::F ww = V::every(w + f + j);
    low = V::fma(ww, V::max(x[j], V::zero()), low);
    high = V::fma(ww, V::max(y[j], V::zero()), high);
  }
}

// fp32 scores of a whole cell.
void pass_fp32(const float *cell, const Shape &s, const User &u, const float *w, float *scores) {
  const int L = s.links, F = s.hidden;
  for (int lane = 0; lane < W; lane += 2 * V::lanes) {
    const float *a = cell + s.a() + lane, *b = cell + s.b() + lane;
    V::F low = dot_part(cell, s, u.e, lane), high = dot_part(cell, s, u.e, lane + V::lanes);
    int f = 0;
    for (; f + NF <= F; f += NF) hidden_units<NF>(a, b, L, F, f, u.g, w, low, high);
    for (; f < F; f++) hidden_units<1>(a, b, L, F, f, u.g, w, low, high);
    V::store(scores + lane, low);
    V::store(scores + lane + V::lanes, high);
  }
}

// fp32 score of one candidate, vectors over F.
float score_one(const float *cell, const Shape &s, const User &u, const float *w, int lane) {
  const int L = s.links, F = s.hidden;
  const float *a = cell + s.a() + lane, *b = cell + s.b() + lane;
  float total = cell[lane];
  for (int k = 0; k < s.dot; k++) total += cell[s.d() + size_t(k) * W + lane] * u.e[k];
  int f = 0;
  for (; f + 32 <= F; f += 32) {
    __m256 x[4];
    for (int j = 0; j < 4; j++) {
      alignas(32) float start[8];
      for (int i = 0; i < 8; i++) start[i] = b[size_t(f + 8 * j + i) * W];
      x[j] = _mm256_load_ps(start);
    }
    for (int l = 0; l < L; l++) {
      const __m256 weight = _mm256_broadcast_ss(a + size_t(l) * W);
      const float *g = u.g + size_t(l) * F + f;
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) x[j] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(g + 8 * j), x[j]);
    }
    __m256 sum = _mm256_setzero_ps();
    for (int j = 0; j < 4; j++)
      sum = _mm256_fmadd_ps(_mm256_loadu_ps(w + f + 8 * j), _mm256_max_ps(x[j], _mm256_setzero_ps()), sum);
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, sum);
    for (float x8 : lanes) total += x8;
  }
  for (; f < F; f++) {
    float x = b[size_t(f) * W];
    for (int l = 0; l < L; l++) x += a[size_t(l) * W] * u.g[size_t(l) * F + f];
    total += w[f] * std::max(x, 0.0f);
  }
  return total;
}

// Clear the bits of the user's own items in the cell that starts at `row`.
uint32_t unseen(User &u, int64_t row, uint32_t mask) {
  for (; u.seen != u.seen_end && *u.seen < row + W; ++u.seen) mask &= ~(1u << (*u.seen - row));
  return mask;
}

void visit(User &u, const float *cell, const Halves &halves, const Shape &s, const float *w, int64_t row,
           uint32_t valid, First first, uint64_t *rescored) {
  const bool started = u.leaders.threshold > -std::numeric_limits<float>::infinity();
  uint32_t mask = valid;
  if (started && first == INT8) mask &= pass_int8(cell, s, u);
  if (started && first == BF16) mask &= pass_bf16(cell, halves, s, u, w);
  mask = unseen(u, row, mask);
  const int left = __builtin_popcount(mask);
  if (left == 0) return;
  if (first != FP32) *rescored += left;
  alignas(32) float scores[W];
  const bool whole = left >= 6; // about where a pass over the cell is cheaper than candidates one by one
  if (whole) pass_fp32(cell, s, u, w, scores);
  for (; mask; mask &= mask - 1) {
    const int lane = __builtin_ctz(mask);
    u.leaders.offer({whole ? scores[lane] : score_one(cell, s, u, w, lane), row + lane});
  }
}

struct Result {
  std::vector<std::vector<int64_t>> rows;
};

// Eight doubles: compilers split them where registers are shorter.
typedef double Eight __attribute__((vector_size(64)));

Eight load8(const double *from) {
  Eight x;
  std::memcpy(&x, from, sizeof x);
  return x;
}

// A product of ROWS rows of x: 16 columns at a time with the sums in registers, each added over `inner` in order.
template <int ROWS>
void multiply_rows(const double *x, int64_t inner, const double *w, int64_t columns, double *out) {
  int64_t j = 0;
  for (; j + 16 <= columns; j += 16) {
    Eight sum[ROWS][2];
    for (int r = 0; r < ROWS; r++)
      for (int half = 0; half < 2; half++) sum[r][half] = x[r * inner] * load8(w + j + 8 * half);
    for (int64_t k = 1; k < inner; k++) {
      const Eight left = load8(w + k * columns + j), right = load8(w + k * columns + j + 8);
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) {
        sum[r][0] += x[r * inner + k] * left;
        sum[r][1] += x[r * inner + k] * right;
      }
    }
    for (int r = 0; r < ROWS; r++) std::memcpy(out + r * columns + j, sum[r], sizeof sum[r]);
  }
  for (; j < columns; j++)
    for (int r = 0; r < ROWS; r++) {
      double sum = x[r * inner] * w[j];
      for (int64_t k = 1; k < inner; k++) sum += x[r * inner + k] * w[k * columns + j];
      out[r * columns + j] = sum;
    }
}

} // namespace

extern "C" {

// What this processor runs: 0 nothing of ours, 1 AVX2, 2 AVX-512 BW, 3 VNNI too, 4 BF16 too. Asked of the AVX2
// library.
int lime_level() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512cd");
  if (!wide) return 1;
  if (!__builtin_cpu_supports("avx512vnni")) return 2;
  return __builtin_cpu_supports("avx512bf16") ? 4 : 3;
}

// Floats of a cell; a test holds the packer (cells.py) to it.
int64_t lime_cell_floats(int links, int hidden, int dot) { return int64_t(Shape{links, hidden, dot}.size()); }

// Rows per user that may reach the K best outside `seen`: a superset of them, ascending. Free with lime_free.
//
// cells [C / 32 rounded up, lime_cell_floats]; g [U, L, F]; e [U, E]; w [F]; eps32 [U]; step, bmax [F];
// seen: rows of all users, ascending within one, offsets seen_at [U + 1]; seeds likewise; first: see First.
void *lime_filter(const float *cells, int64_t candidates, int links, int hidden, int dot, int users, const float *g,
                  const float *e, const double *w, const double *eps32, const double *step, const double *bmax,
                  double drift, const int64_t *seen, const int64_t *seen_at, const float *seeds,
                  const int64_t *seeds_at, int k, int first, uint64_t *rescored) {
  const Shape s{links, hidden, dot};
  const First pass = First(first);
  std::vector<float> w32(w, w + hidden);
  w32.resize(s.units());
  Halves halves;
  auto *result = new Result;
  *rescored = 0;
  for (int start = 0; start < users; start += BLOCK) {
    std::vector<User> block(std::min(BLOCK, users - start));
    for (size_t i = 0; i < block.size(); i++) {
      User &u = block[i];
      const int id = start + int(i);
      u.g = g + size_t(id) * links * hidden, u.e = e + size_t(id) * dot;
      u.seen = seen + seen_at[id], u.seen_end = seen + seen_at[id + 1];
      u.leaders.k = u.leaders.limit = size_t(k);
      u.leaders.slack = 2 * eps32[id];
      for (int64_t j = seeds_at[id]; j < seeds_at[id + 1]; j++) u.leaders.offer({seeds[j], -1});
      if (pass == INT8) quantise(u, s, w, step, bmax, drift, eps32[id]);
      if (pass == BF16) halve(u, s, w, drift, eps32[id]);
    }
    const float *cell = cells;
    // Cache lines of the next cell that each user asks for ahead: all that the first pass reads of it.
    const size_t ahead = (pass == INT8 ? s.b() : s.size()) * sizeof(float) / 64 / block.size();
    for (int64_t row = 0; row < candidates; row += W, cell += s.size()) {
      const int64_t left = candidates - row;
      const uint32_t valid = left >= W ? ~0u : (1u << left) - 1;
      if (pass == BF16) halves.fill(cell, s);
      const char *next = reinterpret_cast<const char *>(left > W ? cell + s.size() : cell);
      for (User &u : block) {
        for (size_t i = 0; i < ahead; i++, next += 64) _mm_prefetch(next, _MM_HINT_T0);
        visit(u, cell, halves, s, w32.data(), row, valid, pass, rescored);
      }
    }
    for (User &u : block) {
      u.leaders.refresh();
      std::vector<int64_t> rows;
      for (const Hit &hit : u.leaders.hits)
        if (hit.row >= 0 && hit.score >= u.leaders.threshold) rows.push_back(hit.row);
      std::sort(rows.begin(), rows.end());
      result->rows.push_back(std::move(rows));
    }
  }
  return result;
}

int64_t lime_count(const void *result, int user) {
  return int64_t(static_cast<const Result *>(result)->rows[user].size());
}

void lime_copy(const void *result, int user, int64_t *rows) {
  const auto &from = static_cast<const Result *>(result)->rows[user];
  std::memcpy(rows, from.data(), from.size() * sizeof(int64_t));
}

void lime_free(void *result) { delete static_cast<Result *>(result); }

// x [rows, inner] times w [inner, columns], each output summed over `inner` in order: `ordered_matmul` of
// lime_model/scoring/canonical.py, and as there without contraction.
void lime_matmul(const double *x, int64_t rows, int64_t inner, const double *w, int64_t columns, double *out) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) multiply_rows<4>(x + i * inner, inner, w, columns, out + i * columns);
  for (; i < rows; i++) multiply_rows<1>(x + i * inner, inner, w, columns, out + i * columns);
}

// Canonical z of some rows for one user: the additions of lime_model/scoring/canonical.py in their order.
// Compiled without contraction, so a multiply and an add round twice, as there.
void lime_base(const float *cells, int links, int hidden, int dot, const float *g, const float *e, const double *w,
               int64_t count, const int64_t *rows, double *z) {
  const Shape s{links, hidden, dot};
  std::vector<double> x(hidden), wide(size_t(links) * hidden);
  for (size_t i = 0; i < wide.size(); i++) wide[i] = g[i];
  for (int64_t i = 0; i < count; i++) {
    const float *cell = cells + size_t(rows[i] / W) * s.size() + rows[i] % W;
    for (int f = 0; f < hidden; f++) x[f] = cell[s.b() + size_t(f) * W];
    for (int l = 0; l < links; l++) {
      const double weight = cell[s.a() + size_t(l) * W];
      const double *row = wide.data() + size_t(l) * hidden;
      for (int f = 0; f < hidden; f++) x[f] += weight * row[f];
    }
    double total = 0;
    for (int f = 0; f < hidden; f++) total += w[f] * (x[f] > 0 ? x[f] : 0.0);
    for (int k = 0; k < dot; k++) total += double(cell[s.d() + size_t(k) * W]) * double(e[k]);
    z[i] = total;
  }
}
}
