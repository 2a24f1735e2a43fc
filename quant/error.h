#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>

namespace moraine::quant {

/// What kind of fault an Error reports. The values are the program's exit codes (docs/architecture.md, "Errors").
enum class ErrorKind : int {
  kUsage = 2,      ///< the caller asked for something that makes no sense
  kBadFile = 3,    ///< a model or data file is broken, unsupported or incomplete
  kNotEnough = 4,  ///< not enough memory or disk space
  kIo = 5,         ///< the operating system could not read or write
  kChecksum = 6,   ///< bytes read are not the bytes written
};

/// The parts of an error message; empty ones are left out of the line.
struct ErrorDetail {
  std::string what;                     ///< the fault in a few words
  std::filesystem::path file = {};      ///< the file it is in
  std::string item = {};                ///< tensor, field or expert, printed quoted
  std::optional<uint64_t> offset = {};  ///< byte offset in `file`
  std::string expected = {};
  std::string got = {};
  std::string action = {};  ///< what the person can do about it
};

/// Bad input, I/O failure or lack of a resource, told for people: what, where, why, what to do, on one line.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const ErrorDetail& detail);

  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

/// `text` with control bytes and invalid UTF-8 escaped as \xNN and cut to `max_bytes`: for names that come from files.
std::string printable(std::string_view text, size_t max_bytes = 120);

/// The Error for a failed system call: `what`, the file and strerror(errno_value). ENOSPC, EDQUOT and ENOMEM become
/// kNotEnough, everything else kIo.
Error system_error(int errno_value, const std::string& what, const std::filesystem::path& file,
                   const std::string& action = {});

/// Ends the process with a message; for MORAINE_CHECK.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace moraine::quant

/// A programmer's promise. A false condition is a bug in Moraine, never bad input: the process ends with a message.
#define MORAINE_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::moraine::quant::check_failed(#condition, __FILE__, __LINE__))
