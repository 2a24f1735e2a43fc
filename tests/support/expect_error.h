#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "quant/error.h"

namespace moraine::testing {

/// Runs `action` and expects a quant::Error of that kind whose one-line message holds every one of `parts`.
template <typename Action>
void expect_error(quant::ErrorKind kind, std::initializer_list<std::string_view> parts, Action&& action) {
  try {
    action();
  } catch (const quant::Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.kind(), kind) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string_view part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in: " << message;
    }
    return;
  }
  ADD_FAILURE() << "no quant::Error was thrown";
}

}  // namespace moraine::testing
