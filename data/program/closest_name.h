// Suggestions for misspelt names: config keys, subcommands, flags, labels.
#pragma once

#include <string>
#include <vector>

namespace emo {

// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal
// string alignment), in bytes.
int edit_distance(const std::string& a, const std::string& b);

// The candidate closest to `name`, or "" where none is close enough to be a plausible typo
// (more than a third of the longer name would have to change).
std::string closest_name(const std::string& name, const std::vector<std::string>& candidates);

// "; did you mean 'x'?" or "" where nothing is close.
std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace emo
