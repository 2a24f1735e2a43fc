#pragma once

namespace moraine::tools {

/// The project's version in CMakeLists.txt; a test holds the two together.
inline constexpr const char* kVersion = "0.1.0";

}  // namespace moraine::tools
