// The native filter: users x candidates on one core, AVX2, everything of a pair in registers.
//
// Candidates lie in cells of 32, lane by lane (lime_model/scoring/cells.py packs them). A block of
// users meets one cell at a time, so a cell stays in L1 and the users' factors stream from L2.
//
// int8 pass.  Link weights are non-negative and sum to 1: as u8 that sum to exactly 255 they meet
// s8 links with |g| <= 127 and no sum leaves int16 (255 * 127 = 32,385), so two instructions do 32
// multiply-adds. Per user and hidden unit f, with `unit` the worth of one int16 step:
//
//     x = unit * (sum_l a8 g8 + m16 + round(b16 k16 / 2^15))     h = max(x, 0)
//
// Negative saturation is harmless (h is 0 either way), positive overflow is excluded by the choice
// of `unit`. The bound |int8 - published| <= base + alpha * |a - a8 / 255|_2 adds up, for every f,
// the residual of G (a convex combination of its rows, so at most the worst row), of B, of w, and
// (a - a8 / 255) G by Cauchy-Schwarz, column by column or by the spectral norm, whichever is less.
//
// fp32 pass.  Survivors, or whole cells while there is no threshold yet; its bound eps32 is that of
// lime_model/scoring/tiled.py. What is left is rescored canonically by `lime_base`.
//
// Letters: U users, L links, F hidden, E dot width, K wanted.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

constexpr int W = 32;     // candidates of a cell
constexpr int NF = 4;     // hidden units of a micro-kernel; F is padded to a multiple
constexpr int BLOCK = 32; // users that share a pass: their int8 factors fit L2
constexpr double UP = 1.0 + 1e-4; // bounds are rounded up, fp32 arithmetic on them included

struct Shape {
  int links, hidden, dot;
  int pairs() const { return (links + 1) / 2; }
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
  std::vector<int32_t> g8;   // [F / NF, L / 2, NF]: two links, twice, for a 32-bit broadcast
  std::vector<int32_t> f16;  // [F, 2]: m16 and k16, each twice
  std::vector<int32_t> w16;  // [F / 2]: two hidden units
  float worth = 0;           // of one step of sum w16 h16
  float alpha = 0, base = 0; // of the int8 bound
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
  const int L = s.links, F = s.hidden, P = s.pairs(), N = s.units();
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
      auto *bytes = reinterpret_cast<int8_t *>(&u.g8[(size_t(f / NF) * P + l / 2) * NF + f % NF]);
      bytes[l % 2] = bytes[2 + l % 2] = int8_t(q);
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

inline __m256 dot_part(const float *cell, const Shape &s, const float *e, int lane, __m256 sum) {
  for (int k = 0; k < s.dot; k++)
    sum = _mm256_fmadd_ps(_mm256_loadu_ps(cell + s.d() + k * W + lane), _mm256_broadcast_ss(e + k), sum);
  return sum;
}

// Which of the 32 candidates may reach the threshold: bit i for candidate i.
uint32_t pass_int8(const float *cell, const Shape &s, const User &u) {
  const auto *a8 = reinterpret_cast<const __m256i *>(cell + s.a8());
  const auto *b16 = reinterpret_cast<const __m256i *>(cell + s.b16());
  const int P = s.pairs(), N = s.units();
  __m256i sum[4]; // low and high halves of x (candidates 0-15) and y (16-31)
  for (auto &part : sum) part = _mm256_setzero_si256();
  const __m256i zero = _mm256_setzero_si256();
  const int32_t *g = u.g8.data();
  for (int f = 0; f < N; f += NF, g += size_t(P) * NF) {
    __m256i x[NF], y[NF];
    for (int j = 0; j < NF; j++) x[j] = y[j] = _mm256_set1_epi32(u.f16[2 * (f + j)]);
    for (int p = 0; p < P; p++) {
      const __m256i left = _mm256_loadu_si256(a8 + 2 * p), right = _mm256_loadu_si256(a8 + 2 * p + 1);
#pragma GCC unroll 4
      for (int j = 0; j < NF; j++) {
        const __m256i q = _mm256_set1_epi32(g[p * NF + j]);
        x[j] = _mm256_add_epi16(x[j], _mm256_maddubs_epi16(left, q));
        y[j] = _mm256_add_epi16(y[j], _mm256_maddubs_epi16(right, q));
      }
    }
#pragma GCC unroll 4
    for (int j = 0; j < NF; j++) {
      const __m256i k = _mm256_set1_epi32(u.f16[2 * (f + j) + 1]);
      const __m256i *b = b16 + 2 * (f + j);
      x[j] = _mm256_max_epi16(_mm256_adds_epi16(x[j], _mm256_mulhrs_epi16(_mm256_loadu_si256(b), k)), zero);
      y[j] = _mm256_max_epi16(_mm256_adds_epi16(y[j], _mm256_mulhrs_epi16(_mm256_loadu_si256(b + 1), k)), zero);
    }
#pragma GCC unroll 2
    for (int j = 0; j < NF; j += 2) {
      const __m256i w = _mm256_set1_epi32(u.w16[(f + j) / 2]);
      sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(x[j], x[j + 1]), w));
      sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(x[j], x[j + 1]), w));
      sum[2] = _mm256_add_epi32(sum[2], _mm256_madd_epi16(_mm256_unpacklo_epi16(y[j], y[j + 1]), w));
      sum[3] = _mm256_add_epi32(sum[3], _mm256_madd_epi16(_mm256_unpackhi_epi16(y[j], y[j + 1]), w));
    }
  }
  const __m256i hidden[4] = {
      _mm256_permute2x128_si256(sum[0], sum[1], 0x20), _mm256_permute2x128_si256(sum[0], sum[1], 0x31),
      _mm256_permute2x128_si256(sum[2], sum[3], 0x20), _mm256_permute2x128_si256(sum[2], sum[3], 0x31)};
  const __m256 alpha = _mm256_set1_ps(u.alpha), worth = _mm256_set1_ps(u.worth);
  const __m256 limit = _mm256_set1_ps(u.leaders.threshold - u.base);
  __m256 part[4];
  for (int i = 0; i < 4; i++)
    part[i] = _mm256_fmadd_ps(alpha, _mm256_loadu_ps(cell + W + 8 * i), _mm256_loadu_ps(cell + 8 * i));
  for (int k = 0; k < s.dot; k++) {
    const __m256 e = _mm256_broadcast_ss(u.e + k);
    const float *d = cell + s.d() + size_t(k) * W;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) part[i] = _mm256_fmadd_ps(_mm256_loadu_ps(d + 8 * i), e, part[i]);
  }
  uint32_t mask = 0;
  for (int i = 0; i < 4; i++) {
    const __m256 score = _mm256_fmadd_ps(_mm256_cvtepi32_ps(hidden[i]), worth, part[i]);
    mask |= uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(score, limit, _CMP_GE_OQ))) << (8 * i);
  }
  return mask;
}

// fp32 scores of a whole cell.
void pass_fp32(const float *cell, const Shape &s, const User &u, const float *w, float *scores) {
  const int L = s.links, F = s.hidden;
  const float *a = cell + s.a(), *b = cell + s.b();
  for (int half = 0; half < W; half += 16) {
    __m256 low = dot_part(cell, s, u.e, half, _mm256_loadu_ps(cell + half));
    __m256 high = dot_part(cell, s, u.e, half + 8, _mm256_loadu_ps(cell + half + 8));
    int f = 0;
    for (; f + 4 <= F; f += 4) {
      __m256 x[4], y[4];
      for (int j = 0; j < 4; j++) {
        x[j] = _mm256_loadu_ps(b + size_t(f + j) * W + half), y[j] = _mm256_loadu_ps(b + size_t(f + j) * W + half + 8);
      }
      for (int l = 0; l < L; l++) {
        const __m256 p = _mm256_loadu_ps(a + size_t(l) * W + half), q = _mm256_loadu_ps(a + size_t(l) * W + half + 8);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
          const __m256 g = _mm256_broadcast_ss(u.g + size_t(l) * F + f + j);
          x[j] = _mm256_fmadd_ps(p, g, x[j]), y[j] = _mm256_fmadd_ps(q, g, y[j]);
        }
      }
      for (int j = 0; j < 4; j++) {
        const __m256 ww = _mm256_broadcast_ss(w + f + j), zero = _mm256_setzero_ps();
        low = _mm256_fmadd_ps(ww, _mm256_max_ps(x[j], zero), low);
        high = _mm256_fmadd_ps(ww, _mm256_max_ps(y[j], zero), high);
      }
    }
    for (; f < F; f++) {
      __m256 x = _mm256_loadu_ps(b + size_t(f) * W + half), y = _mm256_loadu_ps(b + size_t(f) * W + half + 8);
      for (int l = 0; l < L; l++) {
        const __m256 g = _mm256_broadcast_ss(u.g + size_t(l) * F + f);
        x = _mm256_fmadd_ps(_mm256_loadu_ps(a + size_t(l) * W + half), g, x);
        y = _mm256_fmadd_ps(_mm256_loadu_ps(a + size_t(l) * W + half + 8), g, y);
      }
      const __m256 ww = _mm256_broadcast_ss(w + f), zero = _mm256_setzero_ps();
      low = _mm256_fmadd_ps(ww, _mm256_max_ps(x, zero), low);
      high = _mm256_fmadd_ps(ww, _mm256_max_ps(y, zero), high);
    }
    _mm256_storeu_ps(scores + half, low);
    _mm256_storeu_ps(scores + half + 8, high);
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

void visit(User &u, const float *cell, const Shape &s, const float *w, int64_t row, uint32_t valid, bool int8,
           uint64_t *rescored) {
  const bool started = u.leaders.threshold > -std::numeric_limits<float>::infinity();
  uint32_t mask = unseen(u, row, int8 && started ? pass_int8(cell, s, u) & valid : valid);
  const int left = __builtin_popcount(mask);
  if (left == 0) return;
  if (int8) *rescored += left;
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

} // namespace

extern "C" {

int lime_supported() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

// Floats of a cell; a test holds the packer (cells.py) to it.
int64_t lime_cell_floats(int links, int hidden, int dot) { return int64_t(Shape{links, hidden, dot}.size()); }

// Rows per user that may reach the K best outside `seen`: a superset of them, ascending. Free with lime_free.
//
// cells [C / 32 rounded up, lime_cell_floats]; g [U, L, F]; e [U, E]; w [F]; eps32 [U]; step, bmax [F];
// seen: rows of all users, ascending within one, offsets seen_at [U + 1]; seeds likewise.
void *lime_filter(const float *cells, int64_t candidates, int links, int hidden, int dot, int users, const float *g,
                  const float *e, const double *w, const double *eps32, const double *step, const double *bmax,
                  double drift, const int64_t *seen, const int64_t *seen_at, const float *seeds,
                  const int64_t *seeds_at, int k, int int8, uint64_t *rescored) {
  const Shape s{links, hidden, dot};
  std::vector<float> w32(w, w + hidden);
  auto *result = new Result;
  *rescored = 0;
  for (int first = 0; first < users; first += BLOCK) {
    std::vector<User> block(std::min(BLOCK, users - first));
    for (size_t i = 0; i < block.size(); i++) {
      User &u = block[i];
      const int id = first + int(i);
      u.g = g + size_t(id) * links * hidden, u.e = e + size_t(id) * dot;
      u.seen = seen + seen_at[id], u.seen_end = seen + seen_at[id + 1];
      u.leaders.k = u.leaders.limit = size_t(k);
      u.leaders.slack = 2 * eps32[id];
      for (int64_t j = seeds_at[id]; j < seeds_at[id + 1]; j++) u.leaders.offer({seeds[j], -1});
      if (int8) quantise(u, s, w, step, bmax, drift, eps32[id]);
    }
    const float *cell = cells;
    for (int64_t row = 0; row < candidates; row += W, cell += s.size()) {
      const int64_t left = candidates - row;
      const uint32_t valid = left >= W ? ~0u : (1u << left) - 1;
      for (User &u : block) visit(u, cell, s, w32.data(), row, valid, int8 != 0, rescored);
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
