#include "tools/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstring>
#include <optional>

#include "quant/error.h"
#include "quant/file_io.h"

namespace moraine::tools {
namespace {

constexpr size_t kMaxLineBytes = 4u << 20;
constexpr int kHistoryLines = 1000;

/// Bytes of standard input one by one; waits in poll(), so that a signal is noticed.
class StandardInput {
 public:
  explicit StandardInput(const SignalWatch& signals) : signals_(signals) {}

  /// The next byte, or nothing at the end and after a signal.
  std::optional<char> next_byte() {
    if (at_ == end_ && !fill()) return std::nullopt;
    return buffer_[at_++];
  }

 private:
  bool fill() {
    while (true) {
      if (signals_.any()) return false;
      pollfd wanted{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
      if (poll(&wanted, 1, -1) < 0) {
        if (errno == EINTR) continue;
        throw quant::system_error(errno, "could not wait for standard input", {});
      }
      const ssize_t count = read(STDIN_FILENO, buffer_, sizeof buffer_);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw quant::system_error(errno, "could not read standard input", {});
      at_ = 0;
      end_ = static_cast<size_t>(count);
      return count > 0;
    }
  }

  const SignalWatch& signals_;
  char buffer_[4096];
  size_t at_ = 0;
  size_t end_ = 0;
};

class PipeLines final : public LineEditor {
 public:
  explicit PipeLines(const SignalWatch& signals) : signals_(signals), input_(signals) {}

  TypedLine next(const std::string& /*prompt*/) override {
    TypedLine line{.kind = TypedLine::Kind::kText, .text = {}};
    while (const std::optional<char> byte = input_.next_byte()) {
      if (*byte == '\n') return line;
      line.text += *byte;
      if (line.text.size() > kMaxLineBytes) {
        throw quant::Error(quant::ErrorKind::kUsage, {.what = "a line of standard input is longer than 4 MiB"});
      }
    }
    if (signals_.any()) {
      line.kind = TypedLine::Kind::kInterrupted;
    } else if (line.text.empty()) {
      line.kind = TypedLine::Kind::kEnd;
    }
    return line;
  }
  bool interactive() const override { return false; }

 private:
  const SignalWatch& signals_;
  StandardInput input_;
};

/// libedit converts between bytes and characters by the locale; where that knows no UTF-8 (LANG=C), C.UTF-8 does.
void use_utf8_locale() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

class TerminalLines final : public LineEditor {
 public:
  TerminalLines(const SignalWatch& signals, std::filesystem::path history_file)
      : signals_(signals), input_(signals), history_file_(std::move(history_file)) {
    use_utf8_locale();
    editor_.reset(el_init("moraine", stdin, stderr, stderr));
    history_.reset(history_init());
    if (!editor_ || !history_)
      throw quant::Error(quant::ErrorKind::kNotEnough, {.what = "not enough memory for line editing"});
    HistEvent event;
    history(history_.get(), &event, H_SETSIZE, kHistoryLines);
    history(history_.get(), &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) history(history_.get(), &event, H_LOAD, history_file_.c_str());
    el_set(editor_.get(), EL_EDITOR, "emacs");
    el_set(editor_.get(), EL_CLIENTDATA, this);
    el_set(editor_.get(), EL_PROMPT, &TerminalLines::prompt_of);
    el_set(editor_.get(), EL_GETCFN, &TerminalLines::next_character);
    el_set(editor_.get(), EL_HIST, history, history_.get());
    el_set(editor_.get(), EL_BIND, "^R", "em-inc-search-prev", nullptr);
    el_set(editor_.get(), EL_BIND, "^W", "ed-delete-prev-word", nullptr);
  }

  TypedLine next(const std::string& prompt) override {
    prompt_ = prompt;
    el_resize(editor_.get());
    // Before the prompt shows, not at the first key: a Ctrl-D typed in between would be lost.
    el_set(editor_.get(), EL_PREP_TERM, 1);
    int count = 0;
    const char* typed = el_gets(editor_.get(), &count);
    if (typed == nullptr && signals_.any()) {
      const LineInfo* line = el_line(editor_.get());
      return {TypedLine::Kind::kInterrupted, std::string(line->buffer, line->lastchar)};
    }
    if (typed == nullptr || count <= 0) return {TypedLine::Kind::kEnd, {}};
    std::string text = typed;
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    remember(text);
    return {TypedLine::Kind::kText, std::move(text)};
  }
  bool interactive() const override { return true; }

 private:
  struct EndEditor {
    void operator()(EditLine* editor) const { el_end(editor); }
  };
  struct EndHistory {
    void operator()(History* lines) const { history_end(lines); }
  };

  static TerminalLines& self(EditLine* editor) {
    void* data = nullptr;
    el_get(editor, EL_CLIENTDATA, &data);
    return *static_cast<TerminalLines*>(data);
  }

  static char* prompt_of(EditLine* editor) { return self(editor).prompt_.data(); }

  /// For EL_GETCFN: 1 and a character, 0 at the end, -1 after a signal. Runs inside C code, so it lets no exception
  /// out.
  static int next_character(EditLine* editor, wchar_t* character) noexcept {
    try {
      return self(editor).decode(character);
    } catch (const quant::Error&) {
      return -1;
    }
  }

  int decode(wchar_t* character) {
    const std::optional<char> first = input_.next_byte();
    if (!first) return signals_.any() ? -1 : 0;
    const auto lead = static_cast<unsigned char>(*first);
    const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC0 ? 1 : 0;
    uint32_t value = more == 0 ? lead : lead & (0x3Fu >> more);
    for (int index = 0; index < more; ++index) {
      const std::optional<char> next = input_.next_byte();
      if (!next) return signals_.any() ? -1 : 0;
      value = value << 6 | (static_cast<unsigned char>(*next) & 0x3Fu);
    }
    // A terminal that sends anything but UTF-8 (or a stray byte) gives the replacement character, never an invalid one.
    const bool stray = (more == 0 && lead >= 0x80) || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF);
    *character = static_cast<wchar_t>(stray ? 0xFFFDu : value);
    return 1;
  }

  void remember(const std::string& text) {
    if (text.find_first_not_of(" \t") == std::string::npos) return;
    HistEvent event;
    history(history_.get(), &event, H_ENTER, text.c_str());
    if (history_file_.empty()) return;
    // A history that can't be saved is no reason to end a chat.
    std::error_code ignored;
    std::filesystem::create_directories(history_file_.parent_path(), ignored);
    const mode_t before = umask(S_IRWXG | S_IRWXO);
    history(history_.get(), &event, H_SAVE, history_file_.c_str());
    umask(before);
  }

  const SignalWatch& signals_;
  StandardInput input_;
  std::filesystem::path history_file_;
  std::string prompt_;
  std::unique_ptr<History, EndHistory> history_;
  std::unique_ptr<EditLine, EndEditor> editor_;
};

}  // namespace

std::unique_ptr<LineEditor> make_line_editor(Console& console, const SignalWatch& signals,
                                             const std::filesystem::path& history_file) {
  if (isatty(STDIN_FILENO) == 1 && console.err_is_terminal()) {
    return std::make_unique<TerminalLines>(signals, history_file);
  }
  return std::make_unique<PipeLines>(signals);
}

}  // namespace moraine::tools
