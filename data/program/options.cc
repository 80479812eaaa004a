#include "data/program/options.h"

#include <limits>
#include <utility>

namespace emo {

Option& Option::required() {
  is_required = true;
  return *this;
}

Option& Option::show_default() {
  shows_default = true;
  return *this;
}

Option& Option::commas() {
  has_commas = true;
  return *this;
}

Option& Option::each_once() {
  one_at_a_time = true;
  return *this;
}

Option& Option::at_least_values(size_t count) {
  fewest = count;
  return *this;
}

Option& Option::one_of(std::vector<std::string> values) {
  choices = std::move(values);
  return *this;
}

Option& Option::range(double least, double most) {
  limits = {least, most};
  return *this;
}

Option& Option::at_least(double least) {
  return range(least, std::numeric_limits<double>::infinity());
}

Option& Option::check(std::function<std::string(const std::string&)> wrong) {
  checks.push_back(std::move(wrong));
  return *this;
}

Option& OptionList::add(std::string name, OptionTarget target, std::string help) {
  Option& option = options_.emplace_back();
  option.name = std::move(name);
  option.target = target;
  option.help = std::move(help);
  return option;
}

}  // namespace emo
