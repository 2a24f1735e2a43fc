#include "tools/user_files.h"

#include <cstdlib>
#include <span>
#include <string>
#include <system_error>

#include "quant/checksum.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;

/// Of an environment variable; empty unless it is an absolute path.
fs::path absolute_path(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] == '/' ? fs::path(value) : fs::path();
}

/// `name` in the program's folder below `xdg_variable`, or else below `in_home` of the home directory.
fs::path user_file(const char* xdg_variable, const char* in_home, const std::string& name) {
  fs::path folder = absolute_path(xdg_variable);
  if (folder.empty()) {
    const fs::path home = absolute_path("HOME");
    if (home.empty()) return {};
    folder = home / in_home;
  }
  return folder / "moraine" / name;
}

fs::path cache_file(const std::string& name) {
  return user_file("XDG_CACHE_HOME", ".cache", name);
}

}  // namespace

fs::path history_file() {
  return user_file("XDG_STATE_HOME", ".local/state", "history");
}

fs::path predictor_file(uint64_t router_fingerprint) {
  return cache_file("predictor-" + quant::checksum_text(router_fingerprint) + ".safetensors");
}

fs::path machine_record_file() {
  return cache_file("machine.json");
}

fs::path hot_set_file(const fs::path& model) {
  std::error_code error;
  const std::string whole = fs::weakly_canonical(model, error).string();
  if (error) return {};
  const uint64_t hash = quant::checksum(std::as_bytes(std::span(whole.data(), whole.size())));
  const fs::path file = cache_file("hot-" + quant::checksum_text(hash));
  if (!file.empty()) fs::create_directories(file.parent_path(), error);
  return error ? fs::path() : file;
}

}  // namespace moraine::tools
