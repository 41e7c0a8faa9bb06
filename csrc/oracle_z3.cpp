#include "oracle_z3.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace tilesmith {
namespace {

std::string repeated(std::size_t times, const std::string &separator, const auto &text) {
    std::string all;
    for (std::size_t i = 0; i < times; ++i) all += (i ? separator : "") + text(std::to_string(i));
    return all;
}

// A sum whose exponents are named with a letter.
std::string sum(std::size_t primes, const std::string &letter, const std::string &argument) {
    return "(red " + repeated(primes, " ", [&](const std::string &i) { return letter + i; }) + " " + argument + ")";
}

template <typename Function> void load(void *library, const char *name, Function &function) {
    void *symbol = dlsym(library, name);
    if (!symbol) throw std::invalid_argument(std::string("libz3 lacks ") + name);
    function = reinterpret_cast<Function>(symbol);
}

} // namespace

void describe(Theory &theory, const std::vector<Function> &functions, const std::vector<std::string> &names) {
    // Sums come first, and are no functions here.
    for (std::size_t i = theory.primes.size(); i < functions.size(); ++i) {
        if (functions[i].fn == Fn::scale || functions[i].fn == Fn::shift)
            theory.constants = std::max(theory.constants, static_cast<std::size_t>(functions[i].id) + 1);
        else theory.functions.push_back(names[i]);
    }
    std::ranges::sort(theory.functions);
    theory.functions.erase(std::unique(theory.functions.begin(), theory.functions.end()), theory.functions.end());
}

std::string axioms(const Theory &theory) {
    const std::size_t n = theory.primes.size();
    std::string text = "(declare-sort P 0)\n(declare-fun part (P P) Bool)\n";
    std::vector<std::string> leaves;
    for (std::size_t i = 0; i < theory.inputs; ++i) leaves.push_back(std::string("v").append(std::to_string(i)));
    for (std::size_t i = 0; i < theory.constants; ++i) leaves.push_back(std::string("c").append(std::to_string(i)));
    for (const std::string &leaf : leaves) text += "(declare-const " + leaf + " P)\n";
    for (const char *name : {"add", "sub", "mul", "div"}) text += std::string("(declare-fun ") + name + " (P P) P)\n";
    for (const std::string &name : theory.functions) text += "(declare-fun " + name + " (P) P)\n";

    const auto all = [&](const std::string &variables, const std::string &body) {
        text += "(assert (forall (" + variables + ") " + body + "))\n";
    };
    const std::string x = "(x P)", xy = "(x P) (y P)", xyz = "(x P) (y P) (z P)";
    all(xy, "(= (add x y) (add y x))");
    all(xy, "(= (mul x y) (mul y x))");
    all(xyz, "(= (add (add x y) z) (add x (add y z)))");
    all(xyz, "(= (mul (mul x y) z) (mul x (mul y z)))");
    all(xyz, "(= (add (mul x z) (mul y z)) (mul (add x y) z))");
    all(xyz, "(= (add (div x z) (div y z)) (div (add x y) z))");
    all(xyz, "(= (mul x (div y z)) (div (mul x y) z))");
    all(xyz, "(= (div (div x y) z) (div x (mul y z)))");
    for (const std::string &name : theory.functions) {
        if (name == "exp") all(xy, "(= (mul (exp x) (exp y)) (exp (add x y)))");
        if (name == "sqrt") all(xy, "(= (mul (sqrt x) (sqrt y)) (sqrt (mul x y)))");
        if (name == "square") all(x, "(= (square x) (mul x x))");
    }

    all(x, "(part x x)");
    all(xyz, "(=> (and (part x y) (part y z)) (part x z))");
    for (const char *made : {"(add x y)", "(sub x y)", "(mul x y)", "(div x y)"}) {
        all(xy, std::string("(part x ") + made + ")");
        all(xy, std::string("(part y ") + made + ")");
    }
    for (const std::string &name : theory.functions) all(x, "(part x (" + name + " x))");

    if (n) {
        const auto exponents = [&](const std::string &letter) {
            return repeated(n, " ", [&](const std::string &i) { return "(" + letter + i + " Int)"; }) + " ";
        };
        const std::string i = exponents("i"), ij = i + exponents("j");
        text += "(declare-fun red (" + repeated(n, " ", [](const std::string &) { return std::string("Int"); }) + " P) P)\n";
        all(x, "(= (red " + repeated(n, " ", [](const std::string &) { return std::string("0"); }) + " x) x)");
        const std::string both = repeated(n, " ", [](const std::string &k) { return "(+ i" + k + " j" + k + ")"; });
        all(ij + x, "(= " + sum(n, "i", sum(n, "j", "x")) + " (red " + both + " x))");
        all(i + xy, "(= " + sum(n, "i", "(add x y)") + " (add " + sum(n, "i", "x") + " " + sum(n, "i", "y") + "))");
        all(i + xy, "(= " + sum(n, "i", "(mul x y)") + " (mul " + sum(n, "i", "x") + " y))");
        all(i + xy, "(= " + sum(n, "i", "(div x y)") + " (div " + sum(n, "i", "x") + " y))");
        all(i + x, "(part x " + sum(n, "i", "x") + ")");
        const std::string less = repeated(n, " ", [](const std::string &k) { return "(<= i" + k + " j" + k + ")"; });
        all(ij + x, "(=> (and " + less + ") (part " + sum(n, "i", "x") + " " + sum(n, "j", "x") + "))");
    }
    for (const std::string &a : leaves)
        for (const std::string &b : leaves)
            if (a != b) text += "(assert (not (= " + a + " " + b + ")))\n(assert (not (part " + a + " " + b + ")))\n";
    return text;
}

std::string formula(const Theory &theory, const Expressions &expressions, Expression e) {
    bool foreign = false;
    const std::string text = expressions.text(e, [&](std::uint32_t degree, const std::string &argument) {
        std::string exponents;
        for (const std::int64_t prime : theory.primes) {
            int exponent = 0;
            for (; degree % prime == 0; degree = static_cast<std::uint32_t>(degree / prime)) ++exponent;
            exponents += std::to_string(exponent) + " ";
        }
        foreign |= degree != 1;
        return "(red " + exponents + argument + ")";
    });
    return foreign ? std::string() : text;
}

Z3::Z3(const std::string &path) : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (!library_) throw std::invalid_argument("z3 cannot be loaded from " + path + ": " + dlerror());
    load(library_, "Z3_mk_config", make_config);
    load(library_, "Z3_del_config", delete_config);
    load(library_, "Z3_mk_context", make_context);
    load(library_, "Z3_del_context", delete_context);
    load(library_, "Z3_set_error_handler", set_error_handler);
    load(library_, "Z3_eval_smtlib2_string", evaluate);
}

// It stays loaded: threads of its own may be on their way out.
Z3::~Z3() = default;

Z3Oracle::Z3Oracle(std::shared_ptr<const Z3> z3, const std::string &axioms, const std::vector<std::string> &targets,
                   unsigned effort)
    : z3_(std::move(z3)), beginning_("(set-option :rlimit " + std::to_string(effort) + ")\n(set-option :smt.mbqi true)\n" + axioms),
      targets_(targets) {
    begin();
}

Z3Oracle::~Z3Oracle() {
    if (context_) z3_->delete_context(context_);
}

void Z3Oracle::begin() {
    if (context_) z3_->delete_context(std::exchange(context_, nullptr));
    Z3::Config config = z3_->make_config();
    Z3::Context made = z3_->make_context(config);
    z3_->delete_config(config);
    // Errors come back in the answer; the default would end the process.
    z3_->set_error_handler(made, [](Z3::Context, int) {});
    if (const std::string said = z3_->evaluate(made, beginning_.c_str()); !said.empty()) {
        z3_->delete_context(made);
        throw std::runtime_error("z3 does not take the axioms: " + said);
    }
    context_ = made;
}

Answer Z3Oracle::ask(const std::string &formula) {
    std::string script = "(push)";
    for (const std::string &target : targets_) script += "(assert (not (part " + formula + " " + target + ")))";
    script += "(check-sat)(pop)";
    const std::string said = z3_->evaluate(context_, script.c_str());
    // The effort may be over before the question is even put. What was asserted then may stay, and everything follow
    // from it.
    for (const char *over : {"resource limit", "canceled"})
        if (said.find(over) != std::string::npos) {
            begin();
            return Answer::unknown;
        }
    if (said.starts_with("unsat")) return Answer::yes;
    if (said.starts_with("sat")) return Answer::no;
    if (said.starts_with("unknown")) return Answer::unknown;
    throw std::runtime_error("z3 does not take a query: " + said);
}

} // namespace tilesmith
