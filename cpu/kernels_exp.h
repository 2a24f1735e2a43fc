#pragma once

#include <cstdint>

/// exp(x) in f32, the same operations in every kernel file, so that all of them give the same bits:
///   x = min(89, max(−104, x)), NaN kept;  t = fma(x, log2 e, kMagic);  n = bits(t) − bits(kMagic);  r = t − kMagic;
///   r = fma(r, −kLn2Low, fma(r, −kLn2High, x));  p = Taylor polynomial of degree 7 in r, by Horner with fma;
///   exp = (p · 2^(n >> 1)) · 2^(n − (n >> 1)).
/// kMagic = 1.5·2²³ rounds to the nearest integer (even on ties). |r| ≤ 0.35, so the polynomial is off by less than
/// 2^-27.
namespace moraine::cpu {

constexpr float kExpLowest = -104.0f;  // exp(-104) rounds to 0
constexpr float kExpHighest = 89.0f;   // exp(89) overflows to infinity
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kExpMagic = 0x1.8p+23f;
constexpr uint32_t kExpMagicBits = 0x4b400000u;
constexpr float kLn2High = 0x1.62e4p-1f;    // 15 bits, so that n · kLn2High is exact
constexpr float kLn2Low = 0x1.7f7d1cp-20f;  // ln 2 − kLn2High
constexpr float kExpC7 = 0x1.a01a02p-13f;   // 1/5040
constexpr float kExpC6 = 0x1.6c16c2p-10f;   // 1/720
constexpr float kExpC5 = 0x1.111112p-7f;    // 1/120
constexpr float kExpC4 = 0x1.555556p-5f;    // 1/24
constexpr float kExpC3 = 0x1.555556p-3f;    // 1/6
constexpr float kExpC2 = 0.5f;

/// 2^x for x ≤ 0 in attention with bf16 weights: x = max(kExp2Lowest, x);  t = x + kExp2Magic;  r = x − (t −
/// kExp2Magic);
///   p = polynomial of degree 4 in r, by Horner with fma;  exp2 = p · f32 with the bits t << 23.
/// The magic number rounds to an integer n and adds 49, so that t << 23 is 2^(n − 78), or zero for n = −49; the
/// coefficients carry the missing 2^78. Fitted to the smallest relative error on [−0.5, 0.5] with constant term 1:
/// 2^-18.4.
constexpr float kExp2Lowest = -49.0f;
constexpr float kExp2Magic = 0x1.8p+23f + 49.0f;
constexpr float kExp2C4 = 0x1.3a02ccp+71f;
constexpr float kExp2C3 = 0x1.c9fc4ep+73f;
constexpr float kExp2C2 = 0x1.ec0378p+75f;
constexpr float kExp2C1 = 0x1.62e12cp+77f;
constexpr float kExp2C0 = 0x1p+78f;

}  // namespace moraine::cpu
