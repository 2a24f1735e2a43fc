#pragma once

#include "tools/console.h"

namespace moraine::tools {

/// The whole program: parses the command line, runs what it asks for, tells of failure in one line on stderr.
/// Returns the exit code.
int run_program(int argc, const char* const* argv, Console& console);

}  // namespace moraine::tools
