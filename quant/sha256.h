#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace moraine::quant {

/// SHA-256 (FIPS 180-4, by OpenSSL's libcrypto) of bytes that come in pieces: what publishers state of their files.
/// Our own files have the faster ChecksumStream.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void update(std::span<const std::byte> bytes);
  /// 64 lower-case hexadecimal digits. Nothing may follow.
  std::string hex_digest();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moraine::quant
