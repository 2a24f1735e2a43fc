#include "tools/converter.h"

#include <gtest/gtest.h>

#include <map>

#include "support/expect_error.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "tools/record_reader.h"
#include "tools/verifier.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

/// A crash at some point of a conversion.
struct Crash {};

class ConverterTest : public ::testing::Test {
 protected:
  ConverterTest() {
    fs::create_directory(source());
    testing::write_small_model(source());
  }

  fs::path source() const { return directory_ / "source"; }
  fs::path pack() const { return directory_ / "pack"; }

  ConvertOptions options(const fs::path& destination) const {
    ConvertOptions options;
    options.source = source();
    options.destination = destination;
    options.experts = quant::DType::kQ8_0;
    options.threads = 2;
    return options;
  }

  void convert(const ConvertOptions& wanted) { Converter(wanted).run({}); }

  static std::map<std::string, std::string> content(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
      files[entry.path().filename().string()] = testing::file_content(entry.path());
    }
    return files;
  }

  TempDir directory_;
};

TEST_F(ConverterTest, WritesAPackThatOpensAndVerifies) {
  convert(options(pack()));
  const VerifyReport report = verify_model(pack(), {});
  EXPECT_EQ(report.fault_count, 0u) << (report.faults.empty() ? "" : report.faults[0]);
  EXPECT_EQ(report.records, 8u);  // 2 MoE layers of 4 experts
  const auto config = runtime::ModelConfig::from_directory(pack());
  const runtime::ExpertSource experts = runtime::open_expert_source(quant::Checkpoint::open(pack()), config, {});
  EXPECT_EQ(experts.type_name, "Q8_0");
}

TEST_F(ConverterTest, ThePacksRecordsAreThoseOfTheSourceQuantizedOnLoad) {
  convert(options(pack()));
  const auto config = runtime::ModelConfig::from_directory(source());
  const auto loaded = runtime::open_expert_source(quant::Checkpoint::open(source()), config, quant::DType::kQ8_0);
  const auto packed = runtime::open_expert_source(quant::Checkpoint::open(pack()), config, {});
  const RecordReader from_source(*loaded.records);
  const RecordReader from_pack(*packed.records);
  ASSERT_EQ(loaded.records->experts().size(), 8u);
  for (const offload::ExpertId id : loaded.records->experts()) {
    const quant::AlignedBuffer expected = from_source.read(id);
    const quant::AlignedBuffer got = from_pack.read(id);
    EXPECT_TRUE(std::ranges::equal(expected.span(), got.span())) << id.layer << " " << id.expert;
  }
}

TEST_F(ConverterTest, ResidentTensorsKeepTheirBytes) {
  ConvertOptions sharded = options(pack());
  sharded.shard_bytes = 20000;
  convert(sharded);
  const auto from = quant::Checkpoint::open(source());
  const auto to = quant::Checkpoint::open(pack());
  EXPECT_GT(to.files().size(), 2u);
  size_t resident = 0;
  for (const auto& [name, tensor] : from.tensors()) {
    if (name.find(".mlp.experts.") != std::string::npos) continue;
    ++resident;
    const quant::TensorInfo& copy = to.at(name);
    EXPECT_EQ(copy.dtype, tensor.dtype);
    EXPECT_EQ(copy.shape, tensor.shape);
    std::vector<std::byte> expected(tensor.size_bytes), got(copy.size_bytes);
    from.read(tensor, expected);
    to.read(copy, got);
    EXPECT_EQ(expected, got) << name;
  }
  EXPECT_EQ(to.tensors().size(), resident);
  EXPECT_TRUE(to.warnings().empty());
}

TEST_F(ConverterTest, InterruptedAnywhereItGoesOnAndTheBytesAreTheSame) {
  ConvertOptions wanted = options(directory_ / "whole");
  wanted.shard_bytes = 20000;
  convert(wanted);
  const auto expected = content(wanted.destination);

  wanted.destination = pack();
  int crashes = 0;
  for (int steps = 1;; steps += 3) {
    Converter converter(wanted);
    EXPECT_EQ(converter.resumes(), crashes > 0);
    try {
      int step = 0;
      converter.run([&](uint64_t, uint64_t, const std::string&) {
        if (++step == steps) throw Crash();
      });
      break;
    } catch (const Crash&) {
      ++crashes;
    }
  }
  EXPECT_GT(crashes, 5);
  EXPECT_EQ(content(pack()), expected);
}

TEST_F(ConverterTest, ResumedWorkIsNotDoneAgain) {
  const uint64_t total_bytes = Converter(options(pack())).total_bytes();
  try {
    Converter(options(pack())).run([&](uint64_t done_bytes, uint64_t, const std::string& note) {
      if (note == "layer 2 of 2" && done_bytes < total_bytes) throw Crash();
    });
    FAIL() << "no crash";
  } catch (const Crash&) {
  }
  int steps_of_layer_1 = 0;
  uint64_t last_bytes = 0;
  Converter(options(pack())).run([&](uint64_t done_bytes, uint64_t, const std::string& note) {
    EXPECT_GE(done_bytes, last_bytes);
    last_bytes = done_bytes;
    steps_of_layer_1 += note == "layer 1 of 2" ? 1 : 0;
  });
  EXPECT_EQ(steps_of_layer_1, 1);  // "all four are there"
  EXPECT_EQ(last_bytes, total_bytes);
}

TEST_F(ConverterTest, AFinishedConversionIsRecognised) {
  convert(options(pack()));
  const auto before = content(pack());
  Converter again(options(pack()));
  EXPECT_TRUE(again.already_done());
  again.run({});
  EXPECT_EQ(content(pack()), before);
}

TEST_F(ConverterTest, AnotherConversionIsNeverOverwritten) {
  convert(options(pack()));
  const auto before = content(pack());
  ConvertOptions other_type = options(pack());
  other_type.experts = quant::DType::kQ4_0;
  testing::expect_error(quant::ErrorKind::kUsage, {"another --experts", "pack"}, [&] { Converter{other_type}; });
  testing::write_small_model(source(), /*other_weights=*/true);
  testing::expect_error(quant::ErrorKind::kUsage, {"another model", "pack"}, [&] { Converter{options(pack())}; });
  EXPECT_EQ(content(pack()), before);
}

TEST_F(ConverterTest, ADirectoryWithOtherFilesIsRefusedAndUntouched) {
  fs::create_directory(pack());
  directory_.write("pack/thesis.txt", "years of work");
  testing::expect_error(quant::ErrorKind::kUsage, {"no part of a conversion", "thesis.txt"},
                        [&] { Converter{options(pack())}; });
  EXPECT_EQ(content(pack()).size(), 1u);
  testing::expect_error(quant::ErrorKind::kUsage, {"source"}, [&] { Converter{options(source())}; });
}

TEST_F(ConverterTest, ADestinationThatIsAFileIsRefused) {
  directory_.write("pack", "a file");
  testing::expect_error(quant::ErrorKind::kUsage, {"no directory"}, [&] { Converter{options(pack())}; });
}

TEST_F(ConverterTest, TooLittleRoomIsToldWithNumbersBeforeAnythingIsWritten) {
  ConvertOptions wanted = options(pack());
  wanted.free_bytes = [](const fs::path&) { return uint64_t{1000}; };
  testing::expect_error(quant::ErrorKind::kNotEnough, {"not enough room", "16.1 MiB", "1000 B"},
                        [&] { Converter{wanted}; });
  EXPECT_FALSE(fs::exists(pack()));
}

TEST_F(ConverterTest, WhatIsConvertedAlreadyNeedsNoMoreRoom) {
  ConvertOptions wanted = options(pack());
  wanted.shard_bytes = 20000;
  try {
    Converter(wanted).run([](uint64_t done_bytes, uint64_t total_bytes, const std::string&) {
      if (done_bytes > total_bytes / 2) throw Crash();
    });
  } catch (const Crash&) {
  }
  const uint64_t total_bytes = Converter(wanted).total_bytes();
  wanted.free_bytes = [&](const fs::path&) { return (uint64_t{16} << 20) + total_bytes * 2 / 3; };
  EXPECT_NO_THROW(Converter{wanted});
  wanted.destination = directory_ / "fresh";
  testing::expect_error(quant::ErrorKind::kNotEnough, {}, [&] { Converter{wanted}; });
}

TEST_F(ConverterTest, ABrokenSourceIsRefusedBeforeAnythingIsWritten) {
  fs::remove(source() / "tokenizer.json");
  EXPECT_THROW(Converter{options(pack())}, quant::Error);
  EXPECT_FALSE(fs::exists(pack()));
}

TEST_F(ConverterTest, APackCanBeCopiedButNotRequantized) {
  convert(options(pack()));
  ConvertOptions copy = options(directory_ / "copy");
  copy.source = pack();
  convert(copy);
  EXPECT_EQ(testing::file_content(directory_ / "copy" / "experts-00001.bin"),
            testing::file_content(pack() / "experts-00001.bin"));
  copy.destination = directory_ / "other";
  copy.experts = quant::DType::kQ4_0;
  testing::expect_error(quant::ErrorKind::kUsage, {"Q8_0", "Q4_0"}, [&] { Converter{copy}; });
}

}  // namespace
}  // namespace moraine::tools
