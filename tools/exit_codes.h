#pragma once

#include <exception>
#include <string>

#include "quant/error.h"

namespace moraine::tools {

/// What the program returns to the shell (docs/architecture.md, "Errors"); 2 to 6 are the values of quant::ErrorKind.
enum ExitCode : int {
  kExitOk = 0,
  kExitInternal = 1,  ///< a fault of Moraine itself
  kExitUsage = 2,
  kExitBadFile = 3,
  kExitNotEnough = 4,
  kExitIo = 5,
  kExitChecksum = 6,
  kExitHungUp = 129,       ///< SIGHUP
  kExitInterrupted = 130,  ///< SIGINT
  kExitTerminated = 143,   ///< SIGTERM
};

/// The paragraph on exit codes that every --help ends with.
extern const char* const kExitCodesHelp;

ExitCode exit_code(quant::ErrorKind kind);

/// How a command ended that threw.
struct Failure {
  ExitCode code = kExitInternal;
  std::string line;  ///< for stderr, without line breaks
};

/// The exit code and the one line for any exception: quant::Error by its kind, std::bad_alloc as lack of memory, others
/// as a fault of the program.
Failure describe_failure(const std::exception_ptr& error);

}  // namespace moraine::tools
