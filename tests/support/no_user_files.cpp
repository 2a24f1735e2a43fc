#include <gtest/gtest.h>

#include <cstdlib>

namespace moraine::testing {
namespace {

/// What tests, or the programs that they start, learn of the machine or a model is not kept in the home of whoever runs
/// them. Linked into the test programs of folders that write such files.
class NoUserFiles : public ::testing::Environment {
 public:
  void SetUp() override {
    ::setenv("XDG_CACHE_HOME", "/dev/null/cache", 1);
    ::setenv("XDG_STATE_HOME", "/dev/null/state", 1);
  }
};

[[maybe_unused]] const ::testing::Environment* const kNoUserFiles =
    ::testing::AddGlobalTestEnvironment(new NoUserFiles);  // GoogleTest deletes it

}  // namespace
}  // namespace moraine::testing
