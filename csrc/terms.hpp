// Tensor expressions in normal form, so that two are equal under the axioms exactly when they are the same number.
//
//     poly = sum of monos      mono = product of comps      comp = Σ over bound labels of a product of atoms
//     atom = a variable with its labels, in order, or a function of a poly
//
// The axioms: add and mul are commutative, associative and distributive; inverse and square root are multiplicative;
// exp turns sums into products; a sum moves past factors that are free of its label; minus one squared is one. Nothing
// else cancels. Inverses and roots know the factors that all terms of a sum have in common, no other.
//
// A label is (base, part, copy). Copy 0 is the name that a tensor's dimension carries; bound labels have the smallest
// copies that are not free beneath them, in the order that makes the atoms smallest, so that names of bound labels
// never tell two equal sums apart. Temporary names are taken from a stack: `comp` re-enters itself through the
// arguments of functions, and names that were numbered for each call anew would capture one another.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "hash.hpp"
#include "program.hpp"

namespace tilesmith {

using Label = std::uint32_t;
using Labels = std::vector<Label>; // sorted, each once

inline constexpr int kCopyShift = 6;
constexpr Label label(Base base, int part) { return static_cast<Label>((base - 1) * kParts + part); }
constexpr Label atomic(Label l) { return l & ((Label{1} << kCopyShift) - 1); }
constexpr Label copy_of(Label l, Label copy) { return atomic(l) | copy << kCopyShift; }
static_assert(kMaxBases * kParts < 1 << kCopyShift);

// A normal form that grew past its limits: the search is then incomplete, and says so.
struct Overflow : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Terms {
  public:
    using Atom = std::uint32_t;
    using Comp = std::uint32_t;
    using Mono = std::uint32_t;
    using Poly = std::uint32_t;
    using Renaming = std::vector<std::pair<Label, Label>>; // sorted by the first

    // Kinds of atoms. From kOpaque on: a function that only equals itself.
    enum Kind : std::uint32_t { kVariable, kInverse, kSqrt, kExp, kSquare, kOpaque };
    // Constants are variables without labels; their names begin here.
    static constexpr std::uint32_t kConstant = 1 << 16;

    static constexpr std::uint32_t kMinusOne = kConstant - 1;
    static constexpr Comp kMinusOneComp = 0; // the first that is ever made

    explicit Terms(std::size_t limit);

    // Bound labels of these bases are all called by the first one's name.
    void exchange(const std::vector<Base> &group);

    Poly variable(std::uint32_t name, std::span<const Label> labels);
    Poly add(Poly p, Poly q);
    Poly mul(Poly p, Poly q);
    Poly inverse(Poly p) { return multiplicative(kInverse, p); }
    Poly sqrt(Poly p) { return multiplicative(kSqrt, p); }
    Poly negative(Poly p) { return mul(p, minus_one_); }
    Poly square(Poly p);
    Poly exp(Poly p);
    Poly opaque(std::uint32_t kind, Poly p);
    // None where a term is free of the label: its sum would be a multiple by the extent, which has no name.
    std::optional<Poly> sum(Label l, Poly p);
    Poly rename(Poly p, const Renaming &names);

    // Whether every function that applying one of this kind to a value would make has been made before.
    bool knows(std::uint32_t kind, Poly p) const;

    // What terms are made of.
    std::span<const Mono> monos(Poly p) const { return polys_[p]; }
    std::span<const Comp> comps(Mono m) const { return monos_[m]; }
    std::span<const Label> bound(Comp c) const { return comps_[c].subspan(1, comps_[c][0]); }
    std::span<const Atom> atoms(Comp c) const { return comps_[c].subspan(1 + comps_[c][0]); }
    std::uint32_t kind(Atom a) const { return atoms_[a][0]; }
    std::span<const Label> labels(Atom a) const { return atoms_[a].subspan(2); } // of a variable
    Poly argument(Atom a) const { return atoms_[a][1]; }
    const Labels &free_of_atom(Atom a) const { return atom_free_[a]; }
    const Labels &free_of_comp(Comp c) const { return comp_free_[c]; }
    const Labels &free_of_mono(Mono m) const { return mono_free_[m]; }
    const Labels &free_of(Poly p) const { return poly_free_[p]; }

    // A homomorphism of the semiring into pairs of integers modulo 2^32: equal terms have equal values, others hardly
    // ever. Minus one is -1 in the upper half and 1 in the lower: its square is 1, but x - x is not 0.
    std::uint64_t value(Poly p) const { return poly_value_[p]; }
    static constexpr std::uint64_t sum_of_values(std::uint64_t a, std::uint64_t b) {
        return ((a >> 32) + (b >> 32)) << 32 | ((a + b) & 0xffffffffu);
    }
    static constexpr std::uint64_t product_of_values(std::uint64_t a, std::uint64_t b) {
        return ((a >> 32) * (b >> 32)) << 32 | ((a & 0xffffffffu) * (b & 0xffffffffu) & 0xffffffffu);
    }

    Poly poly(std::vector<Mono> monos);
    Mono mono(std::vector<Comp> comps);
    Comp comp(const Labels &bound, std::vector<Atom> atoms);
    Atom rename_atom(Atom a, const Renaming &names);
    Comp rename_comp(Comp c, const Renaming &names);

    // From now on, no sum may bind more copies than any did until now: nothing new can then be a value known before.
    void settle() { most_orders_ = seen_orders_; }

    std::size_t size() const { return atoms_.size() + comps_.size() + monos_.size() + polys_.size(); }

    // For people: "Σ[K.l' K.t'](X·W)".
    std::string show(Poly p) const;

  private:
    Poly multiplicative(Kind kind, Poly p);
    std::vector<Comp> common(Poly p) const;
    std::vector<Comp> rest(Mono m, const std::vector<Comp> &taken) const;
    Comp function(std::uint32_t kind, Poly argument);
    void apart(Comp c, Labels &bound, std::vector<Atom> &atoms);
    Label temporary(Label l) { return copy_of(l, kFirstTemporary + temporaries_++); }
    void check() const;

    // Temporary names are given back at the end of a scope, thrown out of or not.
    struct Scope {
        Label &count;
        Label mark = count;
        explicit Scope(Label &temporaries) : count(temporaries) {}
        Scope(const Scope &) = delete;
        Scope &operator=(const Scope &) = delete;
        ~Scope() { count = mark; }
    };

    static constexpr Label kFirstTemporary = 1 << 12;

    Rows atoms_, comps_, monos_, polys_;
    std::vector<Labels> atom_free_, comp_free_, mono_free_, poly_free_;
    std::vector<std::uint64_t> mono_value_, poly_value_;
    Rows renamings_;
    std::vector<Comp> renamed_;
    std::array<Label, std::size_t{1} << kCopyShift> bound_name_{}; // of each atomic label
    Poly minus_one_ = 0;
    Label temporaries_ = 0;
    double seen_orders_ = 1, most_orders_ = 1e5;
    std::size_t limit_;
};

// What a label becomes.
Label renamed(Label l, const Terms::Renaming &names);

// Sorted unions and differences of label sets.
Labels unite(const Labels &a, const Labels &b);
Labels without(const Labels &a, const Labels &b);
bool contains(const Labels &a, Label l);

} // namespace tilesmith
