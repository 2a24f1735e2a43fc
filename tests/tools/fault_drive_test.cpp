// The built program on a drive that fails: the same tokens, or a clean error. docs/testing.md has the table.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/faulty_program.h"

namespace moraine::tools {
namespace {

namespace fs = std::filesystem;
using testing::DriveFault;
using testing::ProcessOptions;
using testing::ProcessResult;

/// Every fault below both readers. `auto` is io_uring where the system allows it.
class BelowBothReaders : public testing::FaultyDrive {
 protected:
  static constexpr const char* kReaders[] = {"auto", "pread"};

  static void expect_the_same_tokens(const DriveFault& fault) {
    for (const char* reader : kReaders) {
      SCOPED_TRACE(reader);
      expect_right(run_process(with(fault, answer({"--reader", reader}))));
    }
  }

  static void expect_error(const DriveFault& fault, int exit_code, std::vector<std::string> parts) {
    for (const char* reader : kReaders) {
      SCOPED_TRACE(reader);
      expect_clean_error(run_process(with(fault, answer({"--reader", reader}))), exit_code, parts);
    }
  }
};

class FaultDriveSlow : public BelowBothReaders {};

TEST_F(FaultDriveSlow, ShortReads) {
  expect_the_same_tokens({.kind = "short"});
}

TEST_F(FaultDriveSlow, AStormOfInterruptedReads) {
  expect_the_same_tokens({.kind = "EINTR", .pass = 8});
}

TEST_F(FaultDriveSlow, AStormOfRefusedReads) {
  expect_the_same_tokens({.kind = "EAGAIN", .pass = 8});
}

TEST_F(FaultDriveSlow, ReadsThatAreRefusedForeverEndWithAnError) {
  expect_error({.kind = "EAGAIN", .skip = 40}, 5, {"layer ", " expert ", "experts-", "16 attempts", "dmesg"});
}

TEST_F(FaultDriveSlow, OneIoError) {
  for (const char* reader : kReaders) {
    const ProcessResult result =
        run_process(with({.kind = "EIO", .skip = 40, .times = 1}, answer({"--reader", reader, "--no-prefetch"})));
    expect_right(result);
    const auto stats = quant::parse_json(result.out, "stdout").at("stats").at("store");
    EXPECT_EQ(stats.at("rereads"), 1) << reader;
  }
}

TEST_F(FaultDriveSlow, AnIoErrorThatStays) {
  expect_error({.kind = "EIO", .skip = 40}, 5,
               {"layer ", " expert ", "experts-", "byte ", "Input/output error", "dmesg"});
}

TEST_F(FaultDriveSlow, ADriveThatIsGone) {
  expect_error({.kind = "ENODEV", .skip = 40}, 5, {"layer ", " expert ", "experts-", "byte ", "No such device"});
}

TEST_F(FaultDriveSlow, NoMemoryToReadWith) {
  expect_error({.kind = "ENOMEM", .skip = 40}, 4, {"layer ", " expert ", "experts-", "--ram-budget"});
}

TEST_F(FaultDriveSlow, AHundredTimesTheLatency) {
  // The embedded model's records come in about 0.1 ms.
  expect_the_same_tokens({.kind = "slow", .times = 150, .ms = 10});
}

TEST_F(FaultDriveSlow, ARingThatTakesNoCallsForAWhile) {
  expect_right(run_process(with({.kind = "enter", .skip = 20, .times = 300}, answer())));
}

TEST_F(FaultDriveSlow, ARingThatTakesNoCallsAnyMoreEndsWithAnError) {
  const ProcessResult allowed = run_process(answer({"--reader", "io_uring"}));
  if (allowed.exit_code != 0) GTEST_SKIP() << allowed.err;
  expect_clean_error(run_process(with({.kind = "enter", .skip = 20}, answer())), 5,
                     {"io_uring stopped working", "pread"});
}

/// A drive with a copy of the pack beside the first one.
class FaultMirror : public BelowBothReaders {
 protected:
  FaultMirror() { fs::copy(pack(), mirror()); }
  fs::path mirror() const { return directory_ / "mirror"; }
  /// Reads of each copy at the start, which compares them: begin, middle and end of the files of 7 layers.
  static constexpr int kCompared = 3 * 7;
  ProcessOptions striped(const char* reader) const { return answer({"--reader", reader, "--stripe", mirror()}); }
};

TEST_F(FaultMirror, AMirrorThatFailsIsReplacedByTheModel) {
  for (const char* reader : kReaders) {
    for (const char* kind : {"EIO", "ENODEV"}) {
      const ProcessResult result =
          run_process(with({.kind = kind, .file = mirror().string(), .skip = kCompared + 1}, striped(reader)));
      expect_right(result);
      EXPECT_NE(result.err.find("read from the other copies"), std::string::npos) << result.err;
    }
  }
}

TEST_F(FaultMirror, AModelsDriveThatFailsIsReplacedByTheMirror) {
  for (const char* reader : kReaders) {
    const ProcessResult result = run_process(
        with({.kind = "EIO", .file = (pack() / "experts-").string(), .skip = kCompared + 1}, striped(reader)));
    expect_right(result);
    EXPECT_NE(result.err.find("read from the other copies"), std::string::npos) << result.err;
  }
}

TEST_F(FaultMirror, AMirrorThatCannotBeComparedIsRefused) {
  const ProcessResult result = run_process(with({.kind = "EIO", .file = mirror().string()}, striped("auto")));
  expect_clean_error(result, 5, {mirror().string(), "Input/output error"});
}

TEST_F(FaultMirror, WhereBothFailThereIsAnError) {
  for (const char* reader : kReaders) {
    expect_clean_error(run_process(with({.kind = "EIO", .skip = 2 * kCompared + 40}, striped(reader))), 5,
                       {"layer ", " expert ", "experts-", "Input/output error"});
  }
}

TEST_F(FaultMirror, ShortReadsStormsAndLatencyChangeNothing) {
  for (const char* reader : kReaders) {
    for (const DriveFault& fault : {DriveFault{.kind = "short"}, DriveFault{.kind = "EINTR", .pass = 8},
                                    DriveFault{.kind = "slow", .file = mirror().string(), .times = 100, .ms = 10}}) {
      SCOPED_TRACE(reader + fault.kind);
      expect_right(run_process(with(fault, striped(reader))));
    }
  }
}

}  // namespace
}  // namespace moraine::tools
