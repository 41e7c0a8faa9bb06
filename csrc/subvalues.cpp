#include "subvalues.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_set>

namespace tilesmith {
namespace {

using Atom = Terms::Atom;
using Comp = Terms::Comp;
using Mono = Terms::Mono;
using Poly = Terms::Poly;

// What is left of a comp when a part of it is taken out: equal contexts are one number. 0: nothing is left.
using Context = std::uint32_t;

// Bound labels that a part leaves open reach from the part into its context: they are marked there.
constexpr Label kHole = Label{1} << 24;

struct Piece {
    std::vector<Comp> factors; // sorted; none where nothing was taken
    Context context = 0;

    auto operator<=>(const Piece &) const = default;
};

// A part of a mono, with the contexts that its comps leave.
struct Part {
    std::vector<Comp> factors;
    std::vector<Context> contexts;

    auto operator<=>(const Part &) const = default;
};

class Decomposition {
  public:
    Decomposition(Terms &terms, std::size_t limit, const std::function<bool()> &stopped)
        : terms_(terms), limit_(limit), stopped_(stopped) {
        contexts_.intern({});
    }

    std::vector<Poly> run(const std::vector<Poly> &targets) {
        std::vector<Poly> work(targets);
        std::unordered_set<Poly> seen;
        while (!work.empty()) {
            const Poly p = work.back();
            work.pop_back();
            if (!seen.insert(p).second) continue;
            collect(p);
            arguments(p, work);
        }
        std::vector<Poly> sorted(found_.begin(), found_.end());
        std::ranges::sort(sorted);
        return sorted;
    }

  private:
    void check() {
        if (++steps_ % 1024 == 0 && stopped_()) throw Overflow("the time for its table ran out");
        if (found_.size() > limit_) throw Overflow("it has more than " + std::to_string(limit_) + " sub-values");
    }

    // Copies of free labels become copy 0; none where two copies of one label would become the same: no tensor has
    // that shape.
    static std::optional<Terms::Renaming> opening(const Labels &labels) {
        Terms::Renaming names;
        Labels seen;
        for (const Label l : labels) {
            if (contains(seen, atomic(l))) return std::nullopt;
            seen.push_back(atomic(l));
            if (l != atomic(l)) names.emplace_back(l, atomic(l));
        }
        return names;
    }

    std::optional<Poly> open(Poly p) {
        const auto names = opening(terms_.free_of(p));
        if (!names) return std::nullopt;
        return terms_.rename(p, *names);
    }

    Labels free_of(const std::vector<Atom> &atoms) const {
        Labels free;
        for (const Atom a : atoms) free = unite(free, terms_.free_of_atom(a));
        return free;
    }

    // Σ over `bound` of a product of atoms falls into comps that share no bound label. None where a label binds nothing.
    std::optional<std::vector<Comp>> components(const Labels &bound, const std::vector<Atom> &atoms) {
        struct Component {
            Labels bound, labels;
            std::vector<Atom> atoms;
        };
        std::vector<Component> parts;
        for (const Atom a : atoms) parts.push_back({{}, terms_.free_of_atom(a), {a}});
        for (const Label l : bound) {
            Component joined{{l}, {}, {}};
            std::erase_if(parts, [&](const Component &part) {
                if (!contains(part.labels, l)) return false;
                joined.bound = unite(joined.bound, part.bound);
                joined.labels = unite(joined.labels, part.labels);
                joined.atoms.insert(joined.atoms.end(), part.atoms.begin(), part.atoms.end());
                return true;
            });
            if (joined.atoms.empty()) return std::nullopt;
            parts.push_back(std::move(joined));
        }
        std::vector<Comp> comps;
        for (const Component &part : parts) comps.push_back(terms_.comp(part.bound, part.atoms));
        return comps;
    }

    // Calls with every way to take some of the atoms, repeated ones counted, and with the rest.
    template <typename Visit> void each_split(std::span<const Atom> atoms, const Visit &visit) {
        std::vector<Atom> kinds;
        std::vector<int> most;
        for (const Atom a : atoms) {
            if (kinds.empty() || kinds.back() != a) {
                kinds.push_back(a);
                most.push_back(0);
            }
            ++most.back();
        }
        std::vector<int> taken(kinds.size(), 0);
        std::vector<Atom> some, rest;
        for (bool more = true; more;) {
            some.clear();
            rest.clear();
            for (std::size_t i = 0; i < kinds.size(); ++i) {
                some.insert(some.end(), static_cast<std::size_t>(taken[i]), kinds[i]);
                rest.insert(rest.end(), static_cast<std::size_t>(most[i] - taken[i]), kinds[i]);
            }
            visit(some, rest);
            check();
            more = false;
            for (std::size_t i = 0; i < kinds.size() && !more; ++i) {
                more = taken[i] < most[i];
                taken[i] = more ? taken[i] + 1 : 0;
            }
        }
    }

    const std::vector<Piece> &pieces(Comp c) {
        const auto known = pieces_.find(c);
        if (known != pieces_.end()) return known->second;
        std::vector<Piece> made;
        const std::vector<Atom> atoms(terms_.atoms(c).begin(), terms_.atoms(c).end());
        const Labels bound(terms_.bound(c).begin(), terms_.bound(c).end());
        each_split(atoms, [&](const std::vector<Atom> &some, const std::vector<Atom> &rest) {
            const Labels inside = free_of(some), outside = free_of(rest);
            Labels choice;
            for (const Label l : bound)
                if (contains(inside, l) && !contains(outside, l)) choice.push_back(l);
            for (std::uint32_t pick = 0; pick < std::uint32_t{1} << choice.size(); ++pick) {
                Labels summed;
                for (std::size_t i = 0; i < choice.size(); ++i)
                    if (pick >> i & 1) summed.push_back(choice[i]);
                if (auto piece = cut(bound, some, rest, inside, summed)) made.push_back(std::move(*piece));
            }
        });
        std::ranges::sort(made);
        made.erase(std::ranges::unique(made).begin(), made.end());
        return pieces_.emplace(c, std::move(made)).first->second;
    }

    std::optional<Piece> cut(const Labels &bound, const std::vector<Atom> &some, const std::vector<Atom> &rest,
                             const Labels &inside, const Labels &summed) {
        auto factors = components(summed, some);
        const auto names = opening(without(inside, summed));
        if (!factors || !names) return std::nullopt;
        Piece piece;
        for (const Comp factor : *factors) piece.factors.push_back(terms_.rename_comp(factor, *names));
        std::ranges::sort(piece.factors);

        Terms::Renaming holes;
        Labels left;
        for (const Label l : bound) {
            if (!contains(inside, l)) left.push_back(l);
            else if (!contains(summed, l)) holes.emplace_back(l, copy_of(l, kHole));
        }
        if (rest.empty() && holes.empty()) return piece;
        std::vector<std::uint32_t> key{0};
        if (!rest.empty()) {
            std::vector<Atom> marked;
            for (const Atom a : rest) marked.push_back(terms_.rename_atom(a, holes));
            key[0] = terms_.comp(left, std::move(marked)) + 1;
        }
        for (const auto &[from, hole] : holes) key.push_back(hole);
        std::sort(key.begin() + 1, key.end());
        piece.context = contexts_.intern(key);
        return piece;
    }

    const std::vector<Part> &parts(Mono m) {
        const auto known = parts_.find(m);
        if (known != parts_.end()) return known->second;
        std::vector<Part> made{Part{}};
        const std::vector<Comp> comps(terms_.comps(m).begin(), terms_.comps(m).end());
        for (const Comp c : comps) {
            std::vector<Part> longer;
            for (const Part &part : made)
                for (const Piece &piece : pieces(c)) {
                    Part next = part;
                    next.factors.insert(next.factors.end(), piece.factors.begin(), piece.factors.end());
                    std::ranges::sort(next.factors);
                    if (piece.context) next.contexts.push_back(piece.context);
                    std::ranges::sort(next.contexts);
                    longer.push_back(std::move(next));
                    check();
                }
            std::ranges::sort(longer);
            longer.erase(std::ranges::unique(longer).begin(), longer.end());
            made = std::move(longer);
        }
        std::erase_if(made, [](const Part &part) { return part.factors.empty(); });
        return parts_.emplace(m, std::move(made)).first->second;
    }

    // Parts of several monos that leave the same context are a sum that the context is applied to.
    void collect(Poly p) {
        const std::vector<Mono> monos(terms_.monos(p).begin(), terms_.monos(p).end());
        std::map<std::vector<Context>, std::vector<std::vector<Mono>>> by_context;
        for (std::size_t i = 0; i < monos.size(); ++i)
            for (const Part &part : parts(monos[i])) {
                Labels free;
                for (const Comp c : part.factors) free = unite(free, terms_.free_of_comp(c));
                if (!opening(free)) continue;
                auto &choices = by_context[part.contexts];
                choices.resize(monos.size());
                choices[i].push_back(terms_.mono(part.factors));
            }
        for (auto &[context, choices] : by_context) {
            std::erase_if(choices, [](const auto &choice) { return choice.empty(); });
            std::vector<std::size_t> picked(choices.size(), 0);
            for (bool more = true; more;) {
                std::vector<Mono> sum;
                for (std::size_t i = 0; i < choices.size(); ++i)
                    if (picked[i]) sum.push_back(choices[i][picked[i] - 1]);
                if (!sum.empty())
                    if (const auto value = open(terms_.poly(std::move(sum)))) found_.insert(*value);
                check();
                more = false;
                for (std::size_t i = 0; i < choices.size() && !more; ++i) {
                    more = picked[i] < choices[i].size();
                    picked[i] = more ? picked[i] + 1 : 0;
                }
            }
        }
    }

    // f(a)·f(b) is f(a + b) for exp and f(a·b) for inverse and root: every such join is a value to take apart.
    void arguments(Poly p, std::vector<Poly> &work) {
        const std::vector<Mono> monos(terms_.monos(p).begin(), terms_.monos(p).end());
        for (const Mono m : monos) {
            std::map<std::uint32_t, std::vector<Atom>> functions;
            for (const Comp c : terms_.comps(m))
                for (const Atom a : terms_.atoms(c))
                    if (terms_.kind(a) != Terms::kVariable) functions[terms_.kind(a)].push_back(a);
            for (auto &[kind, atoms] : functions) {
                std::ranges::sort(atoms);
                each_split(atoms, [&, kind = kind](const std::vector<Atom> &some, const std::vector<Atom> &) {
                    const bool joins = kind < Terms::kSquare;
                    if (some.empty() || (some.size() > 1 && !joins)) return;
                    Poly value = terms_.argument(some[0]);
                    for (std::size_t i = 1; i < some.size(); ++i) {
                        const Poly next = terms_.argument(some[i]);
                        value = kind == Terms::kExp ? terms_.add(value, next) : terms_.mul(value, next);
                    }
                    if (const auto opened = open(value)) work.push_back(*opened);
                });
            }
        }
    }

    Terms &terms_;
    std::size_t limit_, steps_ = 0;
    const std::function<bool()> &stopped_;
    Rows contexts_;
    std::map<Comp, std::vector<Piece>> pieces_;
    std::map<Mono, std::vector<Part>> parts_;
    std::unordered_set<Poly> found_;
};

} // namespace

std::vector<Terms::Poly> sub_values(Terms &terms, const std::vector<Terms::Poly> &targets, std::size_t limit,
                                    const std::function<bool()> &stopped) {
    return Decomposition(terms, limit, stopped).run(targets);
}

} // namespace tilesmith
