// What a command takes from its arguments, as plain values. A command says it once; the program
// reads arguments by it, prints --help from it and names what was meant (launch/command_line.h).
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace emo {

// Where an argument's value goes. A bool is a flag without a value; a list takes several.
using OptionTarget =
    std::variant<bool*, std::string*, std::optional<int64_t>*, int*, int64_t*, uint64_t*, double*,
                 std::vector<std::string>*, std::vector<int64_t>*, std::vector<double>*>;

struct Option {
  std::string name;  // "--steps", or "CONFIG" for an argument that is known by its place
  OptionTarget target;
  std::string help;
  bool is_required = false;
  bool shows_default = false;        // --help shows what stands in the target
  bool has_commas = false;           // a list's values may be separated by commas
  bool one_at_a_time = false;        // a list's option takes one value each time it is given
  size_t fewest = 0;                 // values of a list; 0: as the target says
  std::vector<std::string> choices;  // a value is one of these; empty: any
  std::optional<std::pair<double, double>> limits;  // of a number, both included
  // "" where a value is right, else what is wrong with it; each is asked.
  std::vector<std::function<std::string(const std::string& text)>> checks;

  Option& required();
  Option& show_default();
  Option& commas();
  Option& each_once();
  Option& at_least_values(size_t count);
  Option& one_of(std::vector<std::string> values);
  // A number in [least, most].
  Option& range(double least, double most);
  Option& at_least(double least);
  Option& check(std::function<std::string(const std::string& text)> wrong);
};

// In the order in which --help shows them. References stay good.
class OptionList {
 public:
  // `target` must outlive the parsing and the command's run.
  Option& add(std::string name, OptionTarget target, std::string help);
  const std::list<Option>& all() const { return options_; }

 private:
  std::list<Option> options_;
};

}  // namespace emo
