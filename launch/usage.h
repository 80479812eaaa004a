// Wrong usage, explained.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace emo {

// What stands wrong in the arguments, as far as it can be told, with the name that was meant:
// "no command 'trian'; did you mean 'train'?", else "".
std::string explain_usage(const CLI::App& app, const std::vector<std::string>& arguments);

// For the exit code of a failed parse: says what was wrong on standard error, or answers --help.
// Prints where `speaks` is set: on one rank of many.
int explain_parse_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv,
                        bool speaks);

// The exit code of an error, which is printed where `speaks` is set.
int report_error(const absl::Status& status, bool speaks);

}  // namespace emo
