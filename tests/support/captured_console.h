#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

#include "tools/console.h"

namespace moraine::testing {

/// A Console whose two streams are kept in memory.
class CapturedConsole {
 public:
  explicit CapturedConsole(bool out_is_terminal = false, bool err_is_terminal = false)
      : out_(std::tmpfile()), err_(std::tmpfile()), console_(out_, err_, out_is_terminal, err_is_terminal) {
    if (out_ == nullptr || err_ == nullptr) throw std::runtime_error("tmpfile");
  }
  ~CapturedConsole() {
    std::fclose(out_);
    std::fclose(err_);
  }
  CapturedConsole(const CapturedConsole&) = delete;
  CapturedConsole& operator=(const CapturedConsole&) = delete;

  tools::Console& console() { return console_; }
  std::string out() const { return content(out_); }
  std::string err() const { return content(err_); }

 private:
  static std::string content(std::FILE* file) {
    std::fflush(file);
    const long end = std::ftell(file);
    std::string text(static_cast<size_t>(end), '\0');
    std::rewind(file);
    const size_t count = std::fread(text.data(), 1, text.size(), file);
    std::fseek(file, end, SEEK_SET);
    text.resize(count);
    return text;
  }

  std::FILE* out_;
  std::FILE* err_;
  tools::Console console_;
};

}  // namespace moraine::testing
