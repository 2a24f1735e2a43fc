#pragma once

#include <string>

#include "quant/safetensors.h"
#include "runtime/model_source.h"

namespace moraine::tools {

/// Tells one source of a conversion from another without reading all of it: XXH3-64 over config.json, every tensor's
/// name, type, shape and place, and 64 KiB at the start, middle and end of every weight file, as 16 hexadecimal digits.
/// Throws quant::Error(kIo / kBadFile).
std::string source_fingerprint(const runtime::ModelSource& source, const quant::Checkpoint& checkpoint);

}  // namespace moraine::tools
