#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "offload/memory_plan.h"
#include "runtime/engine.h"
#include "tools/console.h"
#include "tools/engine_options.h"

namespace moraine::tools {

/// The model a command is to open: `model` itself or, if that is empty, the embedded model. Throws
/// quant::Error(kBadFile) with what to do if there is none.
std::filesystem::path model_directory(const std::filesystem::path& model);

/// Where the embedded model lies, seen from the program's own path: ../share/moraine/models/tiny-r1 where it is
/// installed, tools/models/tiny-r1 of the source tree above build/<preset>/bin. Empty if in neither place.
std::filesystem::path embedded_model_directory(const std::filesystem::path& program);

/// What people call the model: the name of its directory or file.
std::string model_name(const std::filesystem::path& directory);

/// Threads that an engine computes with: as asked, or all that the process may use.
int thread_count(const EngineOptions& options);

/// The parts of a memory plan that a person decided.
offload::MemoryWishes memory_wishes(const EngineOptions& options);

/// The last word on an engine's parts before they are joined: `bench` puts its twins around the backends.
using PartsAdapter = std::function<void(runtime::EngineParts& parts)>;

/// The composition root: opens the model, plans what stays in RAM, loads it with a progress bar, joins backend, expert
/// store and text to an engine. Says the plan on stderr in a line. Throws quant::Error.
std::unique_ptr<runtime::Engine> open_engine(const EngineOptions& options, Console& console,
                                             const PartsAdapter& adapt = {});

}  // namespace moraine::tools
