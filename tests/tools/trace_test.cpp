#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "quant/error.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/trace_file.h"
#include "tools/trace_picture.h"
#include "tools/trace_recorder.h"
#include "tools/trace_writer.h"

namespace moraine::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TempDir;

std::vector<TraceEvent> events_of(const std::filesystem::path& file) {
  std::vector<TraceEvent> events;
  read_trace(file, [&](const TraceEvent& event) { events.push_back(event); });
  return events;
}

TEST(TraceWriter, WritesAJsonArrayOfEvents) {
  const TempDir dir;
  const auto file = dir / "trace.json";
  {
    TraceWriter writer(file);
    writer.span(1, "attention", 10.0, 12.5, R"("layer":3)");
    writer.instant(2, "miss", 13.0, R"("layer":3,"expert":7)");
    writer.begin("read", "read", 1, 13.0, "");
    writer.end("read", "read", 1, 20.0);
    writer.counter("store", 21.0, R"("hits":1)");
  }
  const quant::Json whole = quant::read_json(file);
  ASSERT_TRUE(whole.is_array());
  EXPECT_EQ(whole.size(), 6u) << "five and the end";
  const std::vector<TraceEvent> events = events_of(file);
  EXPECT_EQ(events[0].phase, 'X');
  EXPECT_EQ(events[0].name, "attention");
  EXPECT_EQ(events[0].at_us, 10.0);
  EXPECT_EQ(events[0].duration_us, 2.5);
  EXPECT_EQ(events[0].layer, 3);
  EXPECT_EQ(events[1].expert, 7);
}

TEST(TraceWriter, WhatWasFlushedBeforeACrashIsReadable) {
  const TempDir dir;
  const auto file = dir / "trace.json", cut = dir / "cut.json";
  {
    TraceWriter writer(file);
    for (int i = 0; i < 100; ++i) writer.instant(1, "step", i, R"("rows":1)");
  }
  const std::string text = testing::file_content(file);
  for (const size_t length : {text.size() / 2, text.size() / 2 + 7, text.size() / 2 + 31}) {
    std::ofstream(cut) << text.substr(0, length);
    const size_t count = events_of(cut).size();
    EXPECT_GT(count, 40u);
    EXPECT_LT(count, 60u);
  }
}

TEST(TraceWriter, AFullDiskDisturbsNobody) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  TraceWriter writer("/dev/full");
  writer.instant(1, "step", 1.0, "");
  writer.flush();
  EXPECT_FALSE(writer.failure().empty());
}

TEST(TraceFile, RefusesWhatIsNoTrace) {
  const TempDir dir;
  const auto file = dir / "bad.json";
  for (const char* text : {"", "{}\n", "[\nnot json,\n{}\n", "[\n[1,2],\n{}\n"}) {
    std::ofstream(file) << text;
    EXPECT_THROW(events_of(file), quant::Error) << text;
  }
  EXPECT_THROW(events_of(dir / "absent.json"), quant::Error);
}

/// Two decoded tokens through two MoE layers of four experts, told to a recorder as the twins tell it.
void record_two_tokens(const std::filesystem::path& file) {
  double now_s = 0.0;
  TraceRecorder recorder(file, [&] { return now_s += 0.001; });
  for (int token = 0; token < 2; ++token) {
    recorder.began_step(1);
    for (int layer = 1; layer < 3; ++layer) {
      recorder.called(LayerKind::kAttention, layer, now_s, now_s + 0.010);
      now_s += 0.010;
      recorder.happened(token == 0 ? offload::StoreEvent::kMiss : offload::StoreEvent::kHit, {layer, 2});
      recorder.called(LayerKind::kRouted, -1, now_s, now_s + 0.001);
      now_s += 0.050;  // nothing is computed: the layer waits
      if (token == 0) recorder.happened(offload::StoreEvent::kReadEnded, {layer, 2});
      recorder.called(LayerKind::kRouted, -1, now_s, now_s + 0.004);
      recorder.called(LayerKind::kShared, layer, now_s + 0.004, now_s + 0.005);
      now_s += 0.005;
    }
  }
}

TEST(TraceRecorder, FindsTheWaitsBetweenTheCalls) {
  const TempDir dir;
  record_two_tokens(dir / "trace.json");
  double wait_us = 0.0;
  int waits = 0;
  std::vector<std::string> store;
  for (const TraceEvent& event : events_of(dir / "trace.json")) {
    if (event.name == "wait") wait_us += event.duration_us, ++waits;
    if (event.phase == 'i' && event.expert == 2) store.push_back(event.name);
  }
  EXPECT_EQ(waits, 4);
  EXPECT_NEAR(wait_us / 4, 49e3, 2e3);
  EXPECT_THAT(store, ElementsAre("miss", "miss", "hit", "hit"));
}

TEST(TraceSummary, AddsUpAndDraws) {
  const TempDir dir;
  record_two_tokens(dir / "trace.json");
  const TraceSummary summary(dir / "trace.json", 4);
  EXPECT_THAT(summary.text(), HasSubstr("2 steps (2 of one token)"));
  EXPECT_THAT(summary.text(), HasSubstr("50.0 % hits, 2 misses"));
  const std::string page = summary.html("a <title>");
  EXPECT_THAT(page, HasSubstr("a &lt;title>"));
  EXPECT_THAT(page, HasSubstr("wait of layer 2"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

TEST(ReadRouting, TakesWholeDecodedTokensAlone) {
  const TempDir dir;
  const auto file = dir / "trace.json";
  {
    TraceWriter writer(file);
    writer.metadata(0, "moraine", R"("layers":3,"first_moe_layer":1,"experts":4,"top_k":2)");
    writer.instant(1, "step", 1.0, R"("rows":2)");
    writer.instant(1, "experts", 2.0, R"("layer":1,"rows":[[0,1],[1,2]])");
    for (const char* last : {"[[0,3]]", "[[9,3]]"}) {  // the second token has an expert that is none
      writer.instant(1, "step", 3.0, R"("rows":1)");
      writer.instant(1, "experts", 4.0, R"("layer":1,"rows":[[1,2]])");
      writer.instant(1, "experts", 5.0, std::string(R"("layer":2,"rows":)") + last);
    }
  }
  const RoutingTrace trace = read_routing(file);
  EXPECT_EQ(trace.shape, (RoutingShape{.moe_layers = 2, .n_experts = 4, .top_k = 2}));
  EXPECT_THAT(trace.choices, ElementsAre(1, 2, 0, 3));
}

}  // namespace
}  // namespace moraine::tools
