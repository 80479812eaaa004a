#include "train/metrics/router_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace emo {
namespace {

// A dense layer between two of five experts, four of them routed.
ModelConfig config_of() {
  ModelConfig config;
  config.n_layers = 3;
  config.dense_layers = {1};
  config.num_experts = 5;
  config.num_shared_experts = 1;
  config.top_k = 2;
  return config;
}

LossSums sums_of_two_layers() {
  LossSums sums;
  sums.layers.resize(2);
  sums.layers[0] = {1.5, 40, 30, 20, 6, 9, 3, {10, 6, 4, 0}};
  sums.layers[1] = {1.1, 20, 10, 20, 9, 12, 3, {5, 5, 5, 5}};
  return sums;
}

std::map<std::string, double> metrics_of(const LossSums& sums) {
  RoutingContract contract;
  contract.balance_weight = 0.1;
  contract.z_weight = 0.01;
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : router_metrics(config_of(), contract, sums, 20)) {
    EXPECT_TRUE(metrics.emplace(name, value).second) << name << " stands twice";
  }
  return metrics;
}

TEST(RouterMetrics, OfALayerAreWhatItsSumsSay) {
  std::map<std::string, double> m = metrics_of(sums_of_two_layers());
  EXPECT_DOUBLE_EQ(m.at("block 00/load imbalance"), 2);
  EXPECT_DOUBLE_EQ(m.at("block 02/load imbalance"), 1);
  EXPECT_DOUBLE_EQ(m.at("block 00/load balancing loss"), 1.5 * 0.1 / 2);
  EXPECT_DOUBLE_EQ(m.at("block 00/router Z loss unscaled"), 2);
  EXPECT_DOUBLE_EQ(m.at("block 00/unique experts used per batch"), 4);
  EXPECT_DOUBLE_EQ(m.at("block 00/fraction of experts used per batch"), 0.8);
  EXPECT_DOUBLE_EQ(m.at("block 00/dead experts"), 1);
  EXPECT_DOUBLE_EQ(m.at("block 02/router token-level expert entropy"), 0.5);
  EXPECT_DOUBLE_EQ(m.at("block 02/router document-level expert entropy"), 3);
  EXPECT_DOUBLE_EQ(m.at("block 02/pool size"), 4);
  EXPECT_EQ(m.count("block 01/load imbalance"), 0u) << "a dense layer";
}

TEST(RouterMetrics, OverLayersLossesAreSumsAndTheRestMeansOrTheLargest) {
  std::map<std::string, double> m = metrics_of(sums_of_two_layers());
  EXPECT_DOUBLE_EQ(m.at("load balancing loss"), (1.5 + 1.1) * 0.1 / 2);
  EXPECT_DOUBLE_EQ(m.at("load balancing loss unscaled"), 2.6);
  EXPECT_DOUBLE_EQ(m.at("router Z loss"), 3 * 0.01 / 2);
  EXPECT_DOUBLE_EQ(m.at("router Z loss unscaled"), 3);
  EXPECT_DOUBLE_EQ(m.at("max load imbalance"), 2);
  EXPECT_DOUBLE_EQ(m.at("mean unique experts used per batch"), 4.5);
  EXPECT_DOUBLE_EQ(m.at("mean fraction of experts used per batch"), 0.9);
  EXPECT_DOUBLE_EQ(m.at("mean dead experts"), 0.5);
  EXPECT_DOUBLE_EQ(m.at("mean router token-level expert entropy"), 1);
  EXPECT_DOUBLE_EQ(m.at("mean router document-level expert entropy"), 2.5);
  EXPECT_DOUBLE_EQ(m.at("mean pool size"), 3.5);
  for (const char* name : {"load imbalance", "fraction of experts used per batch", "dead experts",
                           "unique experts used per batch", "pool size"}) {
    EXPECT_EQ(m.count(name), 0u) << name << " does not say what it is over layers";
  }
}

TEST(RouterMetrics, WithoutDocumentsThereAreNoPools) {
  LossSums sums = sums_of_two_layers();
  for (RouterSums& layer : sums.layers) layer.documents = 0;
  for (const auto& [name, value] : metrics_of(sums)) {
    EXPECT_EQ(name.find("pool"), std::string::npos) << name;
    EXPECT_TRUE(std::isfinite(value)) << name;
  }
}

}  // namespace
}  // namespace emo
