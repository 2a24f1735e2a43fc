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

TEST(TraceWriter, NeighboursDoNotOverlap) {
  const TempDir dir;
  const auto file = dir / "trace.json";
  {
    TraceWriter writer(file);
    for (int i = 0; i < 1000; ++i) writer.span(1, "attention", 1.23456 * i, 1.23456 * (i + 1), "");
  }
  double end_us = 0.0;
  for (const TraceEvent& event : events_of(file)) {
    if (event.phase != 'X') continue;
    EXPECT_GE(event.at_us, end_us - 1e-6) << "viewers would take it for nested";
    end_us = event.at_us + event.duration_us;
  }
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
  EXPECT_THAT(page, HasSubstr("wait for drive of layer 2: 49."));
  EXPECT_THAT(page, HasSubstr("reads in flight"));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
}

/// Every tag that is opened is closed, in order. Of HTML, only what has an end.
void expect_nested_tags(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    const size_t end = page.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = page.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag[0] == '!' || tag.back() == '/' || name == "meta" || name == "br") continue;
    if (tag[0] != '/') {
      open.push_back(name);
      continue;
    }
    ASSERT_FALSE(open.empty()) << tag;
    ASSERT_EQ("/" + open.back(), tag);
    open.pop_back();
  }
  EXPECT_TRUE(open.empty());
}

TEST(TraceSummary, DrawsAModelOfR1sShape) {
  const TempDir dir;
  const auto file = dir / "trace.json";
  {
    TraceWriter writer(file);
    writer.metadata(0, "moraine",
                    R"("layers":61,"first_moe_layer":3,"experts":256,"top_k":8,"record_bytes":24772608,"slots":4000)");
    double now_us = 1.0;
    for (int token = 0; token < 40; ++token) {
      writer.instant(1, "step", now_us, R"("rows":1)");
      for (int layer = 0; layer < 61; ++layer) {
        writer.span(1, "attention", now_us, now_us + 900.0, "\"layer\":" + std::to_string(layer));
        for (int i = 0; i < 8 && layer >= 3; ++i) {
          const int expert = (token * 7 + layer * 5 + i * 31) % 256;
          writer.instant(2, expert % 3 == 0 ? "miss" : "hit", now_us,
                         "\"layer\":" + std::to_string(layer) + ",\"expert\":" + std::to_string(expert));
        }
        writer.counter("reads in flight", now_us, R"("reads":3)");
        now_us += 2000.0;
      }
    }
  }
  const std::string page = TraceSummary(file, 6).html("R1");
  EXPECT_LT(page.size(), 8u << 20);
  expect_nested_tags(page);
  EXPECT_THAT(page, HasSubstr("58 layers of 256 experts"));
  EXPECT_THAT(page, HasSubstr("The last 6 steps"));
  EXPECT_THAT(page, HasSubstr("layer 60: 66.6 % hits"));
}

TEST(HeatLevels, CoverEveryCountOnce) {
  EXPECT_THAT(heat_levels(1), ElementsAre(1));
  EXPECT_THAT(heat_levels(3), ElementsAre(1, 2, 3));
  EXPECT_THAT(heat_levels(5), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(heat_levels(1000), ElementsAre(1, 4, 16, 64, 252));
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
