// SHA-256, for checksums of files.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace emo {

// Calls: update any number of times, then hex_digest once; nothing may follow.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(absl::string_view bytes);
  std::string hex_digest();  // 64 lower-case characters

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(absl::string_view bytes);

}  // namespace emo
