#include "tools/eval_logits.h"

#include <gtest/gtest.h>

#include "quant/json.h"
#include "support/expect_error.h"

namespace moraine::tools {
namespace {

using Ids = std::vector<int32_t>;

TEST(ParseTokenIds, TakesCommasWhiteSpaceAndBrackets) {
  EXPECT_EQ(parse_token_ids("0,3,17", 768, ""), (Ids{0, 3, 17}));
  EXPECT_EQ(parse_token_ids(" [0, 3,\n17]\n", 768, ""), (Ids{0, 3, 17}));
  EXPECT_EQ(parse_token_ids("5 6\t7,", 768, ""), (Ids{5, 6, 7}));
  EXPECT_EQ(parse_token_ids("767", 768, ""), (Ids{767}));
}

TEST(ParseTokenIds, RefusesWhatIsNoListOfIds) {
  for (const char* text : {"", "[]", ",", "a", "1,b", "1.5", "1 2x", "[1", "1]", "99999999999999999999", "768", "-1"}) {
    testing::expect_error(quant::ErrorKind::kUsage, {"ids.txt"},
                          [&] { ADD_FAILURE() << text << parse_token_ids(text, 768, "ids.txt").size(); });
  }
}

TEST(RouteRecorder, KeepsChunksInOrderByLayer) {
  runtime::ModelConfig config;
  config.num_hidden_layers = 3;
  config.num_experts_per_tok = 2;
  RouteRecorder recorder(config);
  const std::vector<runtime::RoutedExpert> first = {{1, 0.5f}, {4, 1.5f}};
  const std::vector<runtime::RoutedExpert> second = {{0, 0.25f}, {2, 2.0f}};
  recorder.routed(1, first);
  recorder.routed(2, second);
  recorder.routed(1, second);
  const quant::Json json = quant::parse_json(recorder.json(), "routes.json");
  EXPECT_EQ(json["num_experts_per_tok"], 2);
  EXPECT_EQ(json["layers"].size(), 2u);
  EXPECT_EQ(json["layers"]["1"]["topk"].dump(), "[[1,4],[0,2]]");
  EXPECT_EQ(json["layers"]["1"]["weight"].dump(), "[[0.5,1.5],[0.25,2.0]]");
  EXPECT_EQ(json["layers"]["2"]["topk"].dump(), "[[0,2]]");
}

}  // namespace
}  // namespace moraine::tools
