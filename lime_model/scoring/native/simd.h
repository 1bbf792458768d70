// One vocabulary for the instruction sets: 32 lanes of int16, float registers, and the int8 product.
//
// A kernel is compiled once per instruction set with LIME_ISA naming one of these structs. They differ
// in register width and in how link weights meet links:
//
//     pairs   two links a step, u8 x s8 into int16 (vpmaddubsw, vpaddw): AVX2 and AVX-512 BW
//     quads   four links a step, u8 x s8 into int32 (vpdpbusd): AVX-512 VNNI
//
// and, for the bf16 pass, in how pairs of links meet: `dot16` is vdpbf16ps where the processor has it
// and two multiply-adds on the widened halves elsewhere, to be tested on.
//
// All read the same cells. Avx2Quads is the quad kernel in AVX2 instructions, slower than Avx2 and
// there so that its logic is tested on machines without VNNI.

#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int W = 32; // candidates of a cell
constexpr int NF = 4; // hidden units of a micro-kernel; F is padded to a multiple

struct Avx2 {
  static constexpr int lanes = 8, links = 2; // floats of a register; links of a product step
  using F = __m256;
  struct I { __m256i a, b; }; // int16 of candidates 0-15 and 16-31
  struct S { __m256i v[4]; }; // int32, in the order that unpacking leaves

  static F load(const float *p) { return _mm256_loadu_ps(p); }
  static F every(const float *p) { return _mm256_broadcast_ss(p); }
  static F every(float x) { return _mm256_set1_ps(x); }
  static F zero() { return _mm256_setzero_ps(); }
  static F fma(F x, F y, F z) { return _mm256_fmadd_ps(x, y, z); }
  static F add(F x, F y) { return _mm256_add_ps(x, y); }
  static F max(F x, F y) { return _mm256_max_ps(x, y); }
  static void store(float *p, F x) { _mm256_storeu_ps(p, x); }
  static uint32_t reaches(F x, F limit) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_GE_OQ))); }

  using H = __m256i; // two bf16 links of `lanes` candidates, or of one user in every lane
  static H halves(const uint32_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
  static H every_half(const uint32_t *p) { return _mm256_set1_epi32(int(*p)); }
  static F widened(H x) { return _mm256_castsi256_ps(x); }
  static F dot16(F sum, H x, H y) {
    const H top = _mm256_set1_epi32(int(0xffff0000u));
    sum = fma(widened(_mm256_and_si256(x, top)), widened(_mm256_and_si256(y, top)), sum);
    return fma(widened(_mm256_slli_epi32(x, 16)), widened(_mm256_slli_epi32(y, 16)), sum);
  }

  // x[j] = start[j] + sum over links of weights and g: `weights` [pairs, 32, 2], `g` [steps, NF] words.
  static void multiply(I (&x)[NF], const int32_t *start, const int8_t *weights, int pairs, const int32_t *g) {
    for (int j = 0; j < NF; j++) x[j].a = x[j].b = _mm256_set1_epi32(start[2 * j]);
    const auto *rows = reinterpret_cast<const __m256i *>(weights);
    for (int p = 0; p < pairs; p++) {
      const __m256i left = _mm256_loadu_si256(rows + 2 * p), right = _mm256_loadu_si256(rows + 2 * p + 1);
#pragma GCC unroll 4
      for (int j = 0; j < NF; j++) {
        const __m256i q = _mm256_set1_epi32(g[p * NF + j]);
        x[j].a = _mm256_add_epi16(x[j].a, _mm256_maddubs_epi16(left, q));
        x[j].b = _mm256_add_epi16(x[j].b, _mm256_maddubs_epi16(right, q));
      }
    }
  }
  // max(0, x + round(b k / 2^15)), saturating.
  static I activate(I x, const void *b, int32_t k) {
    const auto *p = static_cast<const __m256i *>(b);
    const __m256i kk = _mm256_set1_epi32(k), none = _mm256_setzero_si256();
    return {_mm256_max_epi16(_mm256_adds_epi16(x.a, _mm256_mulhrs_epi16(_mm256_loadu_si256(p), kk)), none),
            _mm256_max_epi16(_mm256_adds_epi16(x.b, _mm256_mulhrs_epi16(_mm256_loadu_si256(p + 1), kk)), none)};
  }
  static S none() { return {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()}; }
  // s + x w_low + y w_high, for the two int16 weights in the word `w`.
  static void add_products(S &s, I x, I y, int32_t w) {
    const __m256i ww = _mm256_set1_epi32(w);
    s.v[0] = _mm256_add_epi32(s.v[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(x.a, y.a), ww));
    s.v[1] = _mm256_add_epi32(s.v[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(x.a, y.a), ww));
    s.v[2] = _mm256_add_epi32(s.v[2], _mm256_madd_epi16(_mm256_unpacklo_epi16(x.b, y.b), ww));
    s.v[3] = _mm256_add_epi32(s.v[3], _mm256_madd_epi16(_mm256_unpackhi_epi16(x.b, y.b), ww));
  }
  // The sums as floats in the order of the candidates.
  static void floats(const S &s, F (&out)[W / lanes]) {
    out[0] = _mm256_cvtepi32_ps(_mm256_permute2x128_si256(s.v[0], s.v[1], 0x20));
    out[1] = _mm256_cvtepi32_ps(_mm256_permute2x128_si256(s.v[0], s.v[1], 0x31));
    out[2] = _mm256_cvtepi32_ps(_mm256_permute2x128_si256(s.v[2], s.v[3], 0x20));
    out[3] = _mm256_cvtepi32_ps(_mm256_permute2x128_si256(s.v[2], s.v[3], 0x31));
  }
};

struct Avx2Quads : Avx2 {
  static constexpr int links = 4;

  // vpdpbusd: no pair of products leaves int16, as the weights of a candidate sum to 255.
  static __m256i dot(__m256i sum, __m256i weights, __m256i g) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(weights, g), _mm256_set1_epi16(1)));
  }
  static void multiply(I (&x)[NF], const int32_t *start, const int8_t *weights, int pairs, const int32_t *g) {
    S sums[NF];
    for (auto &sum : sums) sum = none();
    const auto *rows = reinterpret_cast<const __m256i *>(weights);
    for (int p = 0; p < pairs; p += 2, g += NF)
      for (int half = 0; half < 2; half++) {
        const __m256i first = _mm256_loadu_si256(rows + 2 * p + half);
        const __m256i second = p + 1 < pairs ? _mm256_loadu_si256(rows + 2 * p + 2 + half) : _mm256_setzero_si256();
        const __m256i low = _mm256_unpacklo_epi16(first, second), high = _mm256_unpackhi_epi16(first, second);
        for (int j = 0; j < NF; j++) {
          const __m256i q = _mm256_set1_epi32(g[j]);
          sums[j].v[2 * half] = dot(sums[j].v[2 * half], low, q);
          sums[j].v[2 * half + 1] = dot(sums[j].v[2 * half + 1], high, q);
        }
      }
    for (int j = 0; j < NF; j++) { // packing undoes the order of unpacking
      const __m256i first = _mm256_set1_epi32(start[2 * j]);
      x[j].a = _mm256_add_epi16(_mm256_packs_epi32(sums[j].v[0], sums[j].v[1]), first);
      x[j].b = _mm256_add_epi16(_mm256_packs_epi32(sums[j].v[2], sums[j].v[3]), first);
    }
  }
};

#ifdef __AVX512BW__
struct Avx512 {
  static constexpr int lanes = 16, links = 2;
  using F = __m512;
  using I = __m512i;
  struct S { __m512i v[2]; };

  static F load(const float *p) { return _mm512_loadu_ps(p); }
  static F every(const float *p) { return _mm512_set1_ps(*p); }
  static F every(float x) { return _mm512_set1_ps(x); }
  static F zero() { return _mm512_setzero_ps(); }
  static F fma(F x, F y, F z) { return _mm512_fmadd_ps(x, y, z); }
  static F add(F x, F y) { return _mm512_add_ps(x, y); }
  static F max(F x, F y) { return _mm512_max_ps(x, y); }
  static void store(float *p, F x) { _mm512_storeu_ps(p, x); }
  static uint32_t reaches(F x, F limit) { return _mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ); }

  using H = __m512i;
  static H halves(const uint32_t *p) { return _mm512_loadu_si512(p); }
  static H every_half(const uint32_t *p) { return _mm512_set1_epi32(int(*p)); }
  static F widened(H x) { return _mm512_castsi512_ps(x); }
  static F dot16(F sum, H x, H y) {
    const H top = _mm512_set1_epi32(int(0xffff0000u));
    sum = fma(widened(_mm512_and_si512(x, top)), widened(_mm512_and_si512(y, top)), sum);
    return fma(widened(_mm512_slli_epi32(x, 16)), widened(_mm512_slli_epi32(y, 16)), sum);
  }

  static void multiply(I (&x)[NF], const int32_t *start, const int8_t *weights, int pairs, const int32_t *g) {
    for (int j = 0; j < NF; j++) x[j] = _mm512_set1_epi32(start[2 * j]);
    for (int p = 0; p < pairs; p++) {
      const __m512i row = _mm512_loadu_si512(weights + 64 * p);
#pragma GCC unroll 4
      for (int j = 0; j < NF; j++)
        x[j] = _mm512_add_epi16(x[j], _mm512_maddubs_epi16(row, _mm512_set1_epi32(g[p * NF + j])));
    }
  }
  static I activate(I x, const void *b, int32_t k) {
    const __m512i part = _mm512_mulhrs_epi16(_mm512_loadu_si512(b), _mm512_set1_epi32(k));
    return _mm512_max_epi16(_mm512_adds_epi16(x, part), _mm512_setzero_si512());
  }
  static S none() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
  static void add_products(S &s, I x, I y, int32_t w) {
    const __m512i ww = _mm512_set1_epi32(w);
    s.v[0] = _mm512_add_epi32(s.v[0], _mm512_madd_epi16(_mm512_unpacklo_epi16(x, y), ww));
    s.v[1] = _mm512_add_epi32(s.v[1], _mm512_madd_epi16(_mm512_unpackhi_epi16(x, y), ww));
  }
  static void floats(const S &s, F (&out)[W / lanes]) {
    // Unpacking works within 128 bits: v[0] holds candidates 0-3, 8-11, 16-19, 24-27 and v[1] the others.
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    out[0] = _mm512_cvtepi32_ps(_mm512_permutex2var_epi32(s.v[0], first, s.v[1]));
    out[1] = _mm512_cvtepi32_ps(_mm512_permutex2var_epi32(s.v[0], second, s.v[1]));
  }
};
#endif

#ifdef __AVX512VNNI__
struct Avx512Vnni : Avx512 {
  static constexpr int links = 4;

  static void multiply(I (&x)[NF], const int32_t *start, const int8_t *weights, int pairs, const int32_t *g) {
    S sums[NF];
    for (auto &sum : sums) sum = none();
    for (int p = 0; p < pairs; p += 2, g += NF) {
      const __m512i first = _mm512_loadu_si512(weights + 64 * p);
      const __m512i second = p + 1 < pairs ? _mm512_loadu_si512(weights + 64 * (p + 1)) : _mm512_setzero_si512();
      const __m512i low = _mm512_unpacklo_epi16(first, second), high = _mm512_unpackhi_epi16(first, second);
#pragma GCC unroll 4
      for (int j = 0; j < NF; j++) {
        const __m512i q = _mm512_set1_epi32(g[j]);
        sums[j].v[0] = _mm512_dpbusd_epi32(sums[j].v[0], low, q);
        sums[j].v[1] = _mm512_dpbusd_epi32(sums[j].v[1], high, q);
      }
    }
    for (int j = 0; j < NF; j++)
      x[j] = _mm512_add_epi16(_mm512_packs_epi32(sums[j].v[0], sums[j].v[1]), _mm512_set1_epi32(start[2 * j]));
  }
};
#endif

#ifdef __AVX512BF16__
struct Avx512Bf16 : Avx512Vnni {
  static F dot16(F sum, H x, H y) { return _mm512_dpbf16_ps(sum, __m512bh(x), __m512bh(y)); }
};
#endif

} // namespace
