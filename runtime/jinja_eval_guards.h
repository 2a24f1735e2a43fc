#pragma once

#include "runtime/jinja_eval.h"

namespace moraine::runtime::jinja {

class Evaluator::ScopeGuard {
 public:
  explicit ScopeGuard(Evaluator& evaluator) : ScopeGuard(evaluator, evaluator.scope_) {}
  ScopeGuard(Evaluator& evaluator, Scope* parent)
      : evaluator_(evaluator), outer_(evaluator.scope_), own_(evaluator.scopes_.open(evaluator.heap_, parent)) {
    evaluator_.scope_ = own_;
  }
  ~ScopeGuard() {
    evaluator_.scope_ = outer_;
    evaluator_.scopes_.close(own_);
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Evaluator& evaluator_;
  Scope* outer_;
  Scope* own_;
};

class Evaluator::Capture {
 public:
  explicit Capture(Evaluator& evaluator) : evaluator_(evaluator), outer_(evaluator.out_) { evaluator_.out_ = &text_; }
  ~Capture() { evaluator_.out_ = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  Text take() { return std::move(text_); }

 private:
  Evaluator& evaluator_;
  Text* outer_;
  Text text_;
};

class Evaluator::DepthGuard {
 public:
  explicit DepthGuard(Evaluator& evaluator) : evaluator_(evaluator) {
    if (evaluator.depth_ >= evaluator.heap_.budget().limits().max_eval_depth) {
      throw TemplateError("the template recurses too deeply", evaluator.line_);
    }
    ++evaluator_.depth_;
  }
  ~DepthGuard() { --evaluator_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Evaluator& evaluator_;
};

}  // namespace moraine::runtime::jinja
