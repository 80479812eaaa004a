// Cuts texts by patterns, for comparison with another program's pieces
// (tokenizer_patterns_test.py). Each line of standard input is a JSON object {"pattern",
// "behavior", "invert", "texts"}; each line of standard output a list of pieces for each text, or
// what is wrong with the pattern.
#include <cstdio>
#include <iostream>
#include <string>

#include "data/tokenizer/pre_tokenizer.h"

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const emo::Json request = emo::Json::parse(line);
    const auto pattern = emo::SplitPattern::compile(request["pattern"],
                                                    request["behavior"] == "removed"
                                                        ? emo::SplitPattern::Behavior::kRemoved
                                                        : emo::SplitPattern::Behavior::kIsolated,
                                                    request["invert"]);
    emo::Json answer;
    if (!pattern.ok()) answer["refused"] = std::string(pattern.status().message());
    for (const std::string text : request["texts"]) {
      if (!pattern.ok()) break;
      std::vector<absl::string_view> pieces;
      const absl::Status status = pattern->split(text, &pieces);
      if (!status.ok()) answer["failed"] = std::string(status.message());
      answer["pieces"].push_back(std::vector<std::string>(pieces.begin(), pieces.end()));
    }
    std::printf("%s\n", answer.dump().c_str());
  }
}
