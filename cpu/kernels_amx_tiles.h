#pragma once

namespace moraine::cpu {

/// Rows and bytes per row of a tile register. A product C[m, n] += A[m, k] · B[k, n] wants A with m rows of 4k' bytes,
/// B with k' rows of 4n bytes and C with m rows of 4n bytes, k' groups of 4 int8 or 2 bf16.
constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

/// Configures this thread's eight tiles, all of them whole: KernelTable::begin. Needs amx_usable(). Done per
/// task: once per panel of weights it was 6 % of the time of 16 tokens.
void amx_begin() noexcept;
/// KernelTable::end.
void amx_end() noexcept;

}  // namespace moraine::cpu
