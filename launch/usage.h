// Wrong usage, explained.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace emo {

// What stands wrong in the arguments, as far as it can be told, with the name that was meant:
// "no command 'trian'; did you mean 'train'?", else "".
std::string explain_usage(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace emo
