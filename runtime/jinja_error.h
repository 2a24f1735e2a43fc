#pragma once

#include <stdexcept>
#include <string>

namespace moraine::runtime::jinja {

/// A template that can't be parsed or rendered. Stays inside the interpreter: ChatTemplate turns it into a quant::Error
/// with the file's name.
class TemplateError : public std::runtime_error {
 public:
  explicit TemplateError(const std::string& message, int line = 0) : std::runtime_error(message), line_(line) {}

  /// 1-based line in the template, 0 while not known.
  int line() const { return line_; }

 private:
  int line_;
};

}  // namespace moraine::runtime::jinja
