#include "tools/gguf_exporter.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "quant/quantize.h"
#include "support/captured_console.h"
#include "support/expect_error.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "support/test_data.h"
#include "tools/converter.h"
#include "tools/eval_kl.h"
#include "tools/inspection.h"
#include "tools/verifier.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using quant::DType;
using testing::CapturedConsole;
using testing::expect_error;
using testing::TempDir;

class GgufExporterTest : public ::testing::Test {
 protected:
  GgufExportOptions options(const fs::path& source, const char* name) const {
    GgufExportOptions options;
    options.source = source;
    options.destination = directory_ / name;
    options.threads = 2;
    return options;
  }

  static void expect_clean(const fs::path& model) {
    const VerifyReport report = verify_model(model, {});
    EXPECT_EQ(report.fault_count, 0u) << (report.faults.empty() ? "" : report.faults[0]);
    EXPECT_GT(report.tensors, 0u);
  }

  /// What `eval kl` says of the two, with activations that are not rounded.
  quant::Json compare(const fs::path& model, const fs::path& reference) const {
    EvalKlOptions wanted;
    wanted.engine.model = model;
    wanted.engine.precise = true;
    wanted.reference.model = reference;
    wanted.reference.precise = true;
    wanted.file = directory_.write("text.txt", "12+34=46. The cat sat on the mat; 99 - 45 = 54, she said.");
    wanted.context = 64;
    wanted.json = true;
    CapturedConsole console;
    EXPECT_EQ(eval_kl(wanted, console.console()), 0);
    return quant::parse_json(console.out(), "stdout");
  }

  TempDir directory_;
};

TEST_F(GgufExporterTest, TinyR1AsF32SaysExactlyTheSame) {
  GgufExportOptions wanted = options(testing::tiny_r1(), "tiny.gguf");
  wanted.experts = DType::kF32;
  wanted.resident = DType::kF32;
  GgufExporter exporter(wanted);
  uint64_t last_bytes = 0;
  exporter.run([&](uint64_t done_bytes, uint64_t total_bytes, const std::string&) {
    EXPECT_GT(done_bytes, last_bytes);
    EXPECT_LE(done_bytes, total_bytes);
    last_bytes = done_bytes;
  });
  EXPECT_EQ(last_bytes, exporter.total_bytes());
  expect_clean(wanted.destination);
  // FP8 weights are what their f32 says, and kv_b_proj in two halves is the same matrix.
  const quant::Json same = compare(wanted.destination, testing::tiny_r1());
  EXPECT_GT(same["positions"], 20);
  EXPECT_EQ(same["worst_kl"], 0.0);
  EXPECT_EQ(same["top1_agreement"], 1.0);
  EXPECT_EQ(same["model"], "tiny.gguf");
  EXPECT_EQ(same["experts"], "F32");
}

TEST_F(GgufExporterTest, Fp8BecomesQ8AndStaysClose) {
  const GgufExportOptions wanted = options(testing::tiny_r1(), "q8.gguf");
  GgufExporter(wanted).run({});
  expect_clean(wanted.destination);
  const Inspection inspection = inspect_model(wanted.destination, {});
  EXPECT_EQ(inspection.kind, "GGUF file");
  EXPECT_EQ(inspection.expert_type, "Q8_0");
  EXPECT_EQ(inspection.expert_count, 7u * 32);
  EXPECT_FALSE(inspection.has_mtp);
  const quant::Json close = compare(wanted.destination, testing::tiny_r1());
  EXPECT_GT(close["mean_kl"], 0.0);
  EXPECT_LT(close["mean_kl"], 0.01);
}

/// Same types, same numbers: a directory of BF16, its GGUF, the pack made of that, and a GGUF of the pack.
TEST_F(GgufExporterTest, NothingIsLostOnTheWayThroughAPack) {
  const fs::path source = directory_ / "source", pack = directory_ / "pack";
  fs::create_directory(source);
  testing::write_small_model(source);
  const GgufExportOptions first = options(source, "first.gguf");
  GgufExporter(first).run({});
  EXPECT_EQ(compare(first.destination, source)["worst_kl"], 0.0);

  ConvertOptions convert;
  convert.source = first.destination;
  convert.destination = pack;
  convert.threads = 2;
  Converter(convert).run({});
  expect_clean(pack);
  EXPECT_TRUE(Converter(convert).already_done());
  EXPECT_EQ(compare(pack, source)["worst_kl"], 0.0);

  const GgufExportOptions second = options(pack, "second.gguf");
  GgufExporter(second).run({});
  const quant::Gguf a = quant::Gguf::open(first.destination), b = quant::Gguf::open(second.destination);
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  const std::string a_bytes = testing::file_content(first.destination);
  const std::string b_bytes = testing::file_content(second.destination);
  for (size_t i = 0; i < a.tensors().size(); ++i) {
    const quant::TensorInfo &x = a.tensors()[i], &y = b.tensors()[i];
    EXPECT_EQ(x.name, y.name);
    EXPECT_EQ(x.dtype, y.dtype) << x.name;
    EXPECT_EQ(a_bytes.substr(x.offset, x.size_bytes), b_bytes.substr(y.offset, y.size_bytes)) << x.name;
  }
}

/// Tiny random models of the other architectures. A Llama's rows are permuted and its rope is interleaved.
TEST_F(GgufExporterTest, OtherArchitecturesSayTheSame) {
  for (const std::string name : {"qwen2", "llama3", "v2-lite"}) {
    SCOPED_TRACE(name);
    const fs::path source = directory_ / name;
    fs::copy(testing::test_data("oracle/models/" + name), source);
    std::ofstream(source / "tokenizer.json")
        << testing::small_tokenizer_json(runtime::PreTokenizerKind::kLlama3).dump();
    const GgufExportOptions first = options(source, (name + ".gguf").c_str());
    GgufExporter(first).run({});
    expect_clean(first.destination);
    // The products of permuted rows of a Llama are added in another order.
    const double most = name == "llama3" ? 1e-10 : 0.0;
    EXPECT_LE(compare(first.destination, source)["worst_kl"].get<double>(), most);
    // A GGUF of the GGUF is not permuted once more.
    const GgufExportOptions second = options(first.destination, (name + "-2.gguf").c_str());
    GgufExporter(second).run({});
    EXPECT_EQ(compare(second.destination, first.destination)["worst_kl"], 0.0);
  }
}

TEST_F(GgufExporterTest, VerifyNamesAScaleThatIsNoNumber) {
  const GgufExportOptions wanted = options(testing::tiny_r1(), "bad.gguf");
  GgufExporter(wanted).run({});
  std::string bytes = testing::file_content(wanted.destination);
  const quant::Gguf gguf = quant::Gguf::open(wanted.destination);
  for (const quant::TensorInfo& tensor : gguf.tensors()) {
    if (tensor.name != "blk.2.ffn_up_exps.weight") continue;
    // The third expert's second block: 128 rows of 256 columns are 1024 blocks of 34 bytes.
    bytes[tensor.offset + 2 * 1024 * 34 + 34 + 1] = '\x7C';
    bytes[tensor.offset + 2 * 1024 * 34 + 34] = '\0';
  }
  directory_.write("bad.gguf", bytes);
  const VerifyReport report = verify_model(wanted.destination, {});
  ASSERT_EQ(report.fault_count, 1u);
  EXPECT_NE(report.faults[0].find("model.layers.2.mlp.experts.2.up_proj.weight"), std::string::npos)
      << report.faults[0];
  EXPECT_NE(report.faults[0].find("NaN or infinite"), std::string::npos) << report.faults[0];
}

/// A crash at some point of an export.
struct Crash {};

TEST_F(GgufExporterTest, InterruptedAnywhereItGoesOnAndTheBytesAreTheSame) {
  fs::create_directory(directory_ / "source");
  testing::write_small_model(directory_ / "source");
  GgufExportOptions wanted = options(directory_ / "source", "whole.gguf");
  wanted.experts = DType::kQ8_0;
  GgufExporter(wanted).run({});
  const std::string expected = testing::file_content(wanted.destination);

  wanted.destination = directory_ / "again.gguf";
  int crashes = 0;
  for (int steps = 1;; steps += 3) {
    try {
      int step = 0;
      GgufExporter(wanted).run([&](uint64_t, uint64_t, const std::string&) {
        if (++step == steps) throw Crash();
      });
      break;
    } catch (const Crash&) {
      ++crashes;
    }
  }
  EXPECT_GT(crashes, 5);
  EXPECT_EQ(testing::file_content(wanted.destination), expected);
  EXPECT_FALSE(fs::exists(directory_ / "again.gguf.part"));
  EXPECT_FALSE(fs::exists(directory_ / "again.gguf.journal"));
}

TEST_F(GgufExporterTest, DamagedPartsAndOtherSourcesAreNotContinued) {
  fs::create_directory(directory_ / "source");
  testing::write_small_model(directory_ / "source");
  GgufExportOptions wanted = options(directory_ / "source", "a.gguf");
  const auto crash_late = [&] {
    int step = 0;
    EXPECT_THROW(GgufExporter(wanted).run([&](uint64_t, uint64_t, const std::string&) {
      if (++step == 30) throw Crash();
    }),
                 Crash);
  };
  crash_late();
  // The bytes of the last parts never reached the disk, as after a power failure.
  const uint64_t size_bytes = fs::file_size(directory_ / "a.gguf.part");
  fs::resize_file(directory_ / "a.gguf.part", size_bytes / 3);
  fs::resize_file(directory_ / "a.gguf.part", size_bytes);
  GgufExporter(wanted).run({});
  const std::string whole = testing::file_content(wanted.destination);
  fs::remove(wanted.destination);

  crash_late();
  testing::write_small_model(directory_ / "source", /*other_weights=*/true);
  GgufExporter(wanted).run({});
  const std::string other = testing::file_content(wanted.destination);
  fs::remove(wanted.destination);
  EXPECT_NE(other, whole);
  EXPECT_EQ(other.size(), whole.size());
  GgufExporter(wanted).run({});
  EXPECT_EQ(testing::file_content(wanted.destination), other);
}

TEST_F(GgufExporterTest, RefusesWhatItCannotDo) {
  GgufExportOptions wanted = options(testing::tiny_r1(), "out.gguf");
  wanted.experts = DType::kF8E4M3;
  expect_error(quant::ErrorKind::kUsage, {"F8_E4M3"}, [&] { GgufExporter{wanted}; });
  wanted.experts = DType::kQ8_0;
  wanted.free_bytes = [](const fs::path&) { return uint64_t{1000}; };
  expect_error(quant::ErrorKind::kNotEnough, {"out.gguf", "1000 B"}, [&] { GgufExporter{wanted}; });
  wanted.free_bytes = {};
  directory_.write("out.gguf", "something");
  expect_error(quant::ErrorKind::kUsage, {"out.gguf", "exists"}, [&] { GgufExporter{wanted}; });
  EXPECT_EQ(testing::file_content(wanted.destination), "something");
}

TEST_F(GgufExporterTest, TheGgufPackageReadsTheFile) {
  if (std::system("python3 -c 'import gguf' > /dev/null 2>&1") != 0) GTEST_SKIP() << "python3 has no package gguf";
  const GgufExportOptions wanted = options(testing::tiny_r1(), "q8.gguf");
  GgufExporter(wanted).run({});
  const fs::path script = directory_.write("read.py", R"(
import gguf, sys
reader = gguf.GGUFReader(sys.argv[1])
tensors = {t.name: t for t in reader.tensors}
assert reader.fields["general.architecture"].contents() == "deepseek2"
assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 768
assert list(tensors["blk.1.ffn_gate_exps.weight"].shape) == [256, 128, 32]
assert tensors["blk.1.attn_k_b.weight"].tensor_type == gguf.GGMLQuantizationType.Q8_0
assert list(tensors["blk.1.attn_k_b.weight"].shape) == [32, 64, 8]
values = gguf.quants.dequantize(tensors["blk.1.attn_q_a.weight"].data, gguf.GGMLQuantizationType.Q8_0)
assert values.shape == (96, 256) and abs(values).max() > 0
)");
  EXPECT_EQ(std::system(("python3 " + script.string() + " " + wanted.destination.string()).c_str()), 0);
}

}  // namespace
}  // namespace moraine::tools
