#pragma once

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace moraine::testing {

/// How to start a program.
struct ProcessOptions {
  std::vector<std::string> args;                                      ///< [0] is the program
  std::string input = {};                                             ///< its standard input, at most a pipe's 64 KiB
  std::vector<std::pair<std::string, std::string>> environment = {};  ///< set on top of the test's own
  std::filesystem::path out_file = {};  ///< standard output goes there instead of into the result
  uint64_t file_size_limit_bytes = 0;   ///< RLIMIT_FSIZE, so that writing fails; 0 = none
  std::vector<std::pair<__rlimit_resource, rlim_t>> limits = {};  ///< other limits
  bool refuse_io_uring = false;  ///< io_uring_setup fails with EPERM, as in many containers
  bool terminal = false;         ///< stdin, stdout and stderr are one pseudo-terminal
  double timeout_s = 60.0;       ///< then it is killed and wait() throws
};

/// How it ended. `exit_code` is 128 + the signal for a program that a signal ended.
struct ProcessResult {
  int exit_code = -1;
  std::string out;
  std::string err;
  uint64_t peak_rss_bytes = 0;
  double cpu_s = 0.0;
};

/// A running program whose output is collected. The destructor kills what still runs.
class Process {
 public:
  explicit Process(const ProcessOptions& options)
      : deadline_(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                         std::chrono::duration<double>(options.timeout_s))) {
    if (options.terminal) {
      start_on_terminal(options);
    } else {
      start_on_pipes(options);
    }
  }
  ~Process() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close_all();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) { ::kill(pid_, number); }

  /// Types into the terminal.
  void type(const std::string& text) {
    if (write(out_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) throw std::runtime_error("write");
  }

  /// Reads until stdout, stderr or the terminal has shown `text` after what earlier calls waited for.
  void wait_for(const std::string& text) {
    const auto found = [&] {
      for (auto [stream, seen] : {std::pair(&result_.out, &out_seen_), std::pair(&result_.err, &err_seen_)}) {
        const size_t at = stream->find(text, *seen);
        if (at == std::string::npos) continue;
        *seen = at + text.size();
        return true;
      }
      return false;
    };
    while (!found()) {
      if (!pump()) throw std::runtime_error("ended without showing '" + text + "': " + result_.out + result_.err);
    }
  }

  ProcessResult wait() {
    while (pump()) {
    }
    int status = 0;
    rusage usage{};
    wait4(pid_, &status, 0, &usage);
    pid_ = -1;
    result_.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    result_.peak_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
    for (const timeval& time : {usage.ru_utime, usage.ru_stime}) {
      result_.cpu_s += static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
    }
    return std::move(result_);
  }

 private:
  void start_on_pipes(const ProcessOptions& options) {
    int in[2], out[2], err[2];
    if (pipe(in) != 0 || pipe(out) != 0 || pipe(err) != 0) throw std::runtime_error("pipe");
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("fork");
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      for (const int* ends : {in, out, err}) {
        close(ends[0]);
        close(ends[1]);
      }
      if (!options.out_file.empty()) dup2(open(options.out_file.c_str(), O_WRONLY), STDOUT_FILENO);
      become(options);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    const bool written =
        write(in[1], options.input.data(), options.input.size()) == static_cast<ssize_t>(options.input.size());
    close(in[1]);
    out_ = out[0];
    err_ = err[0];
    if (!written) throw std::runtime_error("could not write the program's input");
  }

  void start_on_terminal(const ProcessOptions& options) {
    winsize size{.ws_row = 24, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    pid_ = forkpty(&out_, nullptr, nullptr, &size);
    if (pid_ < 0) throw std::runtime_error("forkpty");
    if (pid_ == 0) become(options);
  }

  [[noreturn]] static void become(const ProcessOptions& options) {
    for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
    if (options.file_size_limit_bytes > 0) {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{options.file_size_limit_bytes, options.file_size_limit_bytes};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    for (const auto& [resource, value] : options.limits) {
      const rlimit limit{value, value};
      setrlimit(resource, &limit);
    }
    if (options.refuse_io_uring) refuse_io_uring();
    std::vector<char*> args;
    for (const std::string& arg : options.args) args.push_back(const_cast<char*>(arg.c_str()));
    args.push_back(nullptr);
    execv(args[0], args.data());
    _exit(127);
  }

  static void refuse_io_uring() {
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog filter{.len = 4, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
      _exit(126);
  }

  /// Takes what output there is, waiting for some. False when all of it has come.
  bool pump() {
    pollfd ends[2] = {{.fd = out_, .events = POLLIN, .revents = 0}, {.fd = err_, .events = POLLIN, .revents = 0}};
    if (out_ < 0 && err_ < 0) return false;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - std::chrono::steady_clock::now());
    if (left.count() <= 0 || poll(ends, 2, static_cast<int>(left.count())) <= 0) {
      throw std::runtime_error("timed out; so far: " + result_.out + result_.err);
    }
    take(ends[0], out_, result_.out);
    take(ends[1], err_, result_.err);
    return out_ >= 0 || err_ >= 0;
  }

  static void take(const pollfd& end, int& descriptor, std::string& text) {
    if (descriptor < 0 || end.revents == 0) return;
    char buffer[4096];
    const ssize_t count = read(descriptor, buffer, sizeof buffer);
    if (count > 0) {
      text.append(buffer, static_cast<size_t>(count));
    } else {  // a terminal's end is EIO
      close(std::exchange(descriptor, -1));
    }
  }

  void close_all() {
    for (int* descriptor : {&out_, &err_}) {
      if (*descriptor >= 0) close(std::exchange(*descriptor, -1));
    }
  }

  std::chrono::steady_clock::time_point deadline_;
  pid_t pid_ = -1;
  int out_ = -1;  // stdout, or the terminal
  int err_ = -1;
  size_t out_seen_ = 0;
  size_t err_seen_ = 0;
  ProcessResult result_;
};

/// Runs a program to its end.
inline ProcessResult run_process(const ProcessOptions& options) {
  return Process(options).wait();
}

}  // namespace moraine::testing
