// The programs of the tests, each on a line or two of a small builder.
#pragma once

#include <map>
#include <string>

#include "../program.hpp"

namespace tilesmith::test {

// Bases are named by letters; those in `split` also have the parts `parts`. "-" is a dimension of extent 1.
class Build {
  public:
    Build(const std::string &bases, const std::string &split, unsigned parts = kInBlock | kInLoop) : bases_(bases) {
        program.parts.push_back(0);
        for (const char base : bases)
            program.parts.push_back(
                static_cast<std::uint8_t>(split.find(base) == std::string::npos ? unsigned{kInBlock} : parts));
    }

    int input(const std::string &name, const std::string &dims) {
        Dims packed = 0;
        for (const char c : dims) packed = packed << 8 | Dims{base(c)};
        const auto tensor = tensors_.try_emplace(name, static_cast<int>(tensors_.size())).first->second;
        program.inputs.push_back({tensor, packed});
        return node(Term::input, static_cast<int>(program.inputs.size()) - 1, 0);
    }
    int add(int a, int b) { return node(Term::add, a, b); }
    int mul(int a, int b) { return node(Term::mul, a, b); }
    int div(int a, int b) { return node(Term::div, a, b); }
    int matmul(int a, int b) { return node(Term::matmul, a, b); }
    int row_sum(int a) { return node(Term::sum, a, 0); }
    int transposed(int a) { return node(Term::permute, a, 1 | 0 << 3 | 2 << 6 | 3 << 9 | 4 << 12 | 5 << 15); }
    int apply(Function function, int a) {
        std::size_t place = 0;
        while (place < program.functions.size() && !(program.functions[place] == function)) ++place;
        if (place == program.functions.size()) program.functions.push_back(function);
        return node(Term::apply, a, static_cast<int>(place));
    }
    int exp(int a) { return apply({.fn = Fn::exp}, a); }
    int silu(int a) { return apply({.fn = Fn::opaque, .id = 0}, a); }
    int norm(int a) { return div(a, apply({.fn = Fn::sqrt}, row_sum(apply({.fn = Fn::square}, a)))); }
    int rms_norm(int a, char over) { return apply({.fn = Fn::rms_norm, .base = base(over)}, a); }
    Base base(char c) const { return static_cast<Base>(c == '-' ? 0 : bases_.find(c) + 1); }
    Program done(int output) {
        program.outputs = {output};
        return program;
    }

    Program program;

  private:
    int node(Term term, int a, int b) {
        program.nodes.push_back({term, a, b, 0});
        return static_cast<int>(program.nodes.size()) - 1;
    }

    std::string bases_;
    std::map<std::string, int> tensors_;
};

Program program(const std::string &name, unsigned parts = kInBlock | kInLoop);

} // namespace tilesmith::test
