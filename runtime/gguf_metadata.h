#pragma once

#include "quant/gguf.h"
#include "runtime/model_source.h"

namespace moraine::runtime {

/// What a GGUF file says of a model beside its tensors: the way back from gguf_config_json and its neighbours. Keys are
/// those of files converted since autumn 2025 (split k_b and v_b). `name` is general.name, `experts` decides the
/// informational general.file_type. Throws quant::Error(kBadFile) for broken texts.
quant::GgufWriter::Metadata gguf_metadata(const ModelSource& source, const std::string& name, quant::DType experts);

}  // namespace moraine::runtime
