#pragma once

#include <functional>

namespace moraine::tools {

/// From now on Ctrl-C ends the program with 130, a termination request with 143 and a terminal that goes away with 129,
/// at once, unless a SignalWatch lives. Nothing is lost: whatever is written to disk is either whole or can be resumed.
/// Call once, from main.
void install_signal_handlers();

/// While it lives, SIGINT, SIGTERM and SIGHUP only leave a note, and poll() returns with EINTR. One at a time.
class SignalWatch {
 public:
  SignalWatch();
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// Ctrl-C was pressed since the start or the last forget_interrupt().
  bool interrupted() const;
  void forget_interrupt();
  /// The program was asked to end, or its terminal went away.
  bool terminated() const;
  /// Of a program that ends for what any() saw.
  int exit_code() const;
  bool any() const { return interrupted() || terminated(); }
};

}  // namespace moraine::tools
