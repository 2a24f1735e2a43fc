#include "tools/exit_codes.h"

#include <gtest/gtest.h>

#include <new>

namespace moraine::tools {
namespace {

template <typename Exception>
Failure failure_of(const Exception& exception) {
  return describe_failure(std::make_exception_ptr(exception));
}

TEST(ExitCodes, AreThoseOfTheErrorsKind) {
  using quant::ErrorKind;
  EXPECT_EQ(exit_code(ErrorKind::kUsage), 2);
  EXPECT_EQ(exit_code(ErrorKind::kBadFile), 3);
  EXPECT_EQ(exit_code(ErrorKind::kNotEnough), 4);
  EXPECT_EQ(exit_code(ErrorKind::kIo), 5);
  EXPECT_EQ(exit_code(ErrorKind::kChecksum), 6);
}

TEST(ExitCodes, AnErrorIsToldAsItIs) {
  const quant::Error error(quant::ErrorKind::kChecksum, {.what = "wrong checksum", .item = "layer 3 expert 5"});
  const Failure failure = failure_of(error);
  EXPECT_EQ(failure.code, kExitChecksum);
  EXPECT_EQ(failure.line, error.what());
}

TEST(ExitCodes, LackOfMemoryIsFour) {
  const Failure failure = failure_of(std::bad_alloc());
  EXPECT_EQ(failure.code, kExitNotEnough);
  EXPECT_NE(failure.line.find("--ram-budget"), std::string::npos);
}

TEST(ExitCodes, AnythingElseIsAFaultOfTheProgramOnOneLine) {
  const Failure failure = failure_of(std::logic_error("two\nlines"));
  EXPECT_EQ(failure.code, kExitInternal);
  EXPECT_EQ(failure.line, "internal fault: two lines");
  EXPECT_EQ(failure_of(42).code, kExitInternal);
}

TEST(ExitCodes, HelpNamesEveryCode) {
  const std::string help = kExitCodesHelp;
  for (const int code : {0, 1, 2, 3, 4, 5, 6, 129, 130, 143}) {
    EXPECT_NE(help.find("  " + std::to_string(code) + " "), std::string::npos) << code;
  }
}

}  // namespace
}  // namespace moraine::tools
