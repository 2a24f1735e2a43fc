#include "runtime/jinja_value.h"

#include <gtest/gtest.h>

#include "quant/json.h"
#include "runtime/jinja_context.h"

namespace moraine::runtime::jinja {
namespace {

template <typename Function>
std::string fault(const Function& function) {
  try {
    function();
  } catch (const TemplateError& error) {
    return error.what();
  }
  return "no error";
}

TEST(JinjaValue, NamesTypesAsPythonDoes) {
  Heap heap;
  EXPECT_EQ(type_name(None{}), "NoneType");
  EXPECT_EQ(type_name(true), "bool");
  EXPECT_EQ(type_name(int64_t{1}), "int");
  EXPECT_EQ(type_name(1.5), "float");
  EXPECT_EQ(type_name(heap.text("x", true)), "str");
  EXPECT_EQ(type_name(heap.list({})), "list");
  EXPECT_EQ(type_name(heap.list({}, ListKind::kGenerator)), "generator");
  EXPECT_EQ(type_name(heap.dict()), "dict");
  EXPECT_EQ(type_name(heap.undefined("x")), "Undefined");
}

TEST(JinjaValue, DecidesTruthAsPythonDoes) {
  Heap heap;
  EXPECT_FALSE(truthy(heap.undefined("x")));
  EXPECT_FALSE(truthy(None{}));
  EXPECT_FALSE(truthy(int64_t{0}));
  EXPECT_FALSE(truthy(0.0));
  EXPECT_FALSE(truthy(heap.text("", true)));
  EXPECT_FALSE(truthy(heap.list({})));
  EXPECT_FALSE(truthy(heap.dict()));
  EXPECT_TRUE(truthy(heap.list({}, ListKind::kGenerator)));
  EXPECT_TRUE(truthy(heap.text("0", true)));
  EXPECT_TRUE(truthy(-0.5));
}

TEST(JinjaValue, DictionaryKeysAreEqualAsInPython) {
  Heap heap;
  Dict* dict = heap.dict();
  heap.set(*dict, int64_t{1}, heap.text("integer", true));
  heap.set(*dict, heap.text("1", true), heap.text("text", true));
  heap.set(*dict, None{}, heap.text("none", true));
  heap.set(*dict, 1.0, heap.text("real", true));  // replaces the value of 1
  EXPECT_EQ(dict->items.size(), 3u);
  EXPECT_EQ(as_text(*dict->find(Value(true)))->bytes(), "real");
  EXPECT_EQ(as_text(*dict->find("1"))->bytes(), "text");
  EXPECT_EQ(as_text(*dict->find(Value(None{})))->bytes(), "none");
  EXPECT_EQ(dict->find("2"), nullptr);
  EXPECT_EQ(fault([&] { heap.set(*dict, heap.list({}), None{}); }), "'list' can't be a dictionary key");
}

TEST(JinjaValue, AGeneratorIsReadOnce) {
  Heap heap;
  const Value generator = heap.list({int64_t{1}, int64_t{2}}, ListKind::kGenerator);
  EXPECT_EQ(fault([&] { length_of(heap, generator); }), "object of type 'generator' has no len()");
  EXPECT_EQ(iterate(heap, generator)->items.size(), 2u);
  EXPECT_EQ(iterate(heap, generator)->items.size(), 0u);
}

TEST(JinjaValue, IteratesStringsByCodePoint) {
  Heap heap;
  const List* list = iterate(heap, heap.text("é｜x", false));
  ASSERT_EQ(list->items.size(), 3u);
  EXPECT_EQ(as_text(list->items[1])->bytes(), "｜");
  EXPECT_FALSE(as_text(list->items[1])->trusted_at(0));
  EXPECT_EQ(fault([&] { iterate(heap, int64_t{5}); }), "'int' object is not iterable");
}

TEST(JinjaValue, BindsArgumentsByPlaceAndName) {
  const Arguments arguments{{int64_t{1}}, {{"c", int64_t{3}}}};
  const auto bound = bind_arguments("f", arguments, {"a", "b", "c"});
  EXPECT_EQ(std::get<int64_t>(*bound[0]), 1);
  EXPECT_EQ(bound[1], nullptr);
  EXPECT_EQ(std::get<int64_t>(*bound[2]), 3);
  EXPECT_EQ(fault([&] { bind_arguments("f", arguments, {"a", "b"}); }), "'f' has no argument 'c'");
  EXPECT_EQ(fault([&] { bind_arguments("f", arguments, {"c"}); }), "'f' got argument 'c' twice");
  EXPECT_EQ(fault([&] { bind_arguments("f", arguments, {}); }), "'f' takes at most 0 arguments, got 1");
}

TEST(JinjaValue, RefusesWhatIsTooLarge) {
  Limits limits;
  limits.max_text_bytes = 10;
  limits.max_list_items = 3;
  limits.max_made_bytes = 10'000;
  Heap heap(limits);
  EXPECT_EQ(fault([&] { heap.text(std::string(11, 'a'), true); }), "the template makes a string that is too long");
  EXPECT_EQ(fault([&] { heap.list(std::vector<Value>(4)); }), "the template makes a list that is too long");
  EXPECT_EQ(fault([&] {
              for (int i = 0; i < 1000; ++i) heap.list({});
            }),
            "the template uses too much memory (byte limit)");
}

TEST(JinjaValue, BoundsTheDepthOfContainers) {
  Heap heap;
  Value value = heap.list({});
  EXPECT_EQ(fault([&] {
              for (int depth = 1; depth < kMaxValueDepth; ++depth) value = heap.list({value});
            }),
            "no error");
  EXPECT_EQ(fault([&] { heap.list({value}); }), "lists and dictionaries are nested too deeply");
  EXPECT_EQ(fault([&] { heap.set(*heap.dict(), int64_t{1}, value); }), "lists and dictionaries are nested too deeply");

  quant::Json json = quant::Json::array();
  for (int depth = 0; depth < 300; ++depth) json = quant::Json::array({json});
  EXPECT_EQ(fault([&] { value_from_json(heap, json); }), "the context is nested too deeply");
}

TEST(JinjaValue, TakesJsonInOrderAndUntrusted) {
  Heap heap;
  const auto json = quant::parse_json(R"({"b":[1,2.0,true,null,"x"],"a":18446744073709551615})", "test");
  const Value value = value_from_json(heap, json);
  const Dict& dict = *std::get<Dict*>(value);
  EXPECT_EQ(as_text(dict.items[0].first)->bytes(), "b");
  EXPECT_FALSE(as_text(dict.items[0].first)->trusted_at(0));
  const std::vector<Value>& items = std::get<List*>(dict.items[0].second)->items;
  EXPECT_EQ(std::get<int64_t>(items[0]), 1);
  EXPECT_EQ(std::get<double>(items[1]), 2.0);
  EXPECT_TRUE(std::get<bool>(items[2]));
  EXPECT_TRUE(is_none(items[3]));
  EXPECT_FALSE(as_text(items[4])->trusted_at(0));
  EXPECT_EQ(std::get<double>(dict.items[1].second), 18446744073709551615.0);
}

}  // namespace
}  // namespace moraine::runtime::jinja
