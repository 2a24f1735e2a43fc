#include "tools/console.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "quant/error.h"

namespace moraine::tools {
Console::Console() : Console(stdout, stderr, isatty(STDOUT_FILENO) == 1, isatty(STDERR_FILENO) == 1) {}

Console::Console(std::FILE* out, std::FILE* err, bool out_is_terminal, bool err_is_terminal)
    : out_(out),
      err_(err),
      out_is_terminal_(out_is_terminal),
      err_is_terminal_(err_is_terminal),
      color_(err_is_terminal && std::getenv("NO_COLOR") == nullptr) {}

void Console::out(std::string_view text) {
  clear_redrawn();
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), out_) != text.size() || std::fflush(out_) != 0) {
    throw quant::system_error(errno, "could not write to standard output", {}, "free space there or write elsewhere");
  }
}

void Console::err(std::string_view text) {
  clear_redrawn();
  // What can't be said on stderr can't be complained about either.
  (void)std::fwrite(text.data(), 1, text.size(), err_);
  (void)std::fflush(err_);
}

void Console::line(std::string_view message) {
  err(fmt::format("moraine: {}\n", message));
}

int Console::width() const {
  winsize size{};
  if (ioctl(fileno(err_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

int Console::height() const {
  winsize size{};
  return ioctl(fileno(err_), TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

std::string_view Console::dim_on() const {
  return color_ ? "\x1b[2m" : "";
}

std::string_view Console::dim_off() const {
  return color_ ? "\x1b[0m" : "";
}

void Console::redraw(std::string_view text) {
  if (!err_is_terminal_) return;
  fmt::print(err_, "\r{}\x1b[K", cut_to_columns(text, width() - 1));
  (void)std::fflush(err_);
  redrawn_ = true;
}

void Console::clear_redrawn() {
  if (!redrawn_) return;
  redrawn_ = false;
  fmt::print(err_, "\r\x1b[K");
  (void)std::fflush(err_);
}

std::string_view cut_to_columns(std::string_view text, int columns) {
  size_t end = 0;
  for (int column = 0; end < text.size() && column < columns; ++column) {
    ++end;
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) ++end;
  }
  return text.substr(0, end);
}

std::string terminal_safe(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const bool c0 = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F;
    // U+0080 to U+009F, C1 controls, are written C2 80 to C2 9F.
    const bool c1 = byte == 0xC2 && at + 1 < text.size() && (static_cast<unsigned char>(text[at + 1]) & 0xE0u) == 0x80u;
    if (c0 || c1) {
      safe += "\xEF\xBF\xBD";
      if (c1) ++at;
    } else {
      safe += text[at];
    }
  }
  return safe;
}

}  // namespace moraine::tools
