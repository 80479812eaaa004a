// Files in a run's folder, beside those of `emo train`.
#pragma once

#include <cstdint>
#include <string>

namespace emo {

inline constexpr char kEvalFile[] = "eval.json";            // of emo eval
inline constexpr char kRetentionFile[] = "retention.json";  // of emo experts retention
inline constexpr char kCopiesFile[] = "copies.json";        // of emo experts place
inline constexpr char kMeasuredFile[] = "measured.json";    // of each of these, what decided it
inline constexpr char kCostFile[] = "cost.json";            // seconds and memory
inline constexpr char kFailedFile[] = "failed.json";        // how its last try failed
inline constexpr char kLogFile[] = "log.txt";               // all that its commands said
inline constexpr char kRunLock[] = "run.lock";

// The last bytes of a file, at most so many; "" where it cannot be read.
std::string tail_of(const std::string& path, int64_t most);

int64_t size_of(const std::string& path);  // 0 where there is none

}  // namespace emo
