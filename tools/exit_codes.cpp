#include "tools/exit_codes.h"

#include <algorithm>
#include <new>

namespace moraine::tools {

const char* const kExitCodesHelp =
    "EXIT CODES\n"
    "  0 done   2 wrong usage   3 broken or unsupported model or data file   4 not enough memory or disk space\n"
    "  5 the system could not read or write   6 wrong checksum   1 a fault of moraine itself\n"
    "  129 terminal gone   130 interrupted (Ctrl-C)   143 terminated";

ExitCode exit_code(quant::ErrorKind kind) {
  switch (kind) {
    case quant::ErrorKind::kUsage:
      return kExitUsage;
    case quant::ErrorKind::kBadFile:
      return kExitBadFile;
    case quant::ErrorKind::kNotEnough:
      return kExitNotEnough;
    case quant::ErrorKind::kIo:
      return kExitIo;
    case quant::ErrorKind::kChecksum:
      return kExitChecksum;
  }
  return kExitInternal;
}

Failure describe_failure(const std::exception_ptr& error) {
  Failure failure;
  try {
    std::rethrow_exception(error);
  } catch (const quant::Error& known) {
    failure = {exit_code(known.kind()), known.what()};
  } catch (const std::bad_alloc&) {
    failure = {kExitNotEnough, "not enough memory; close other programs or lower --ram-budget"};
  } catch (const std::exception& unknown) {
    failure = {kExitInternal, std::string("internal fault: ") + unknown.what()};
  } catch (...) {
    failure = {kExitInternal, "internal fault of unknown kind"};
  }
  std::replace(failure.line.begin(), failure.line.end(), '\n', ' ');
  return failure;
}

}  // namespace moraine::tools
