#include "subvalues.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

namespace tilesmith {
namespace {

using Atom = Terms::Atom;
using Comp = Terms::Comp;
using Mono = Terms::Mono;
using Poly = Terms::Poly;

// A factor that is left of a comp when a part of it is taken out, or a label that is left open: equal ones are one number.
using Context = std::uint32_t;

// Bound labels that a part leaves open reach from the part into its context: they are marked there.
constexpr Label kHole = Label{1} << 24;

// What is taken out of a comp, or of a mono, and what is left.
struct Part {
    std::vector<Comp> factors;     // sorted; none where nothing was taken
    std::vector<Context> contexts; // sorted
    std::vector<Comp> closed;      // what is left where the part is left out, sorted
    bool closes = true;            // whether that is a value

    auto operator<=>(const Part &) const = default;
};

class Decomposition {
  public:
    Decomposition(Terms &terms, const Exchangeable &exchangeable, std::size_t limit, const std::function<bool()> &stopped)
        : terms_(terms), exchangeable_(exchangeable), limit_(limit), stopped_(stopped) {}

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

    void find(Poly value) {
        if (consistent(value)) found_.insert(value);
    }

    // Every way for copies of free labels to become copy 0: of their own name, or of another that can be exchanged for
    // it. None where two would become the same: no tensor has that shape.
    std::vector<Terms::Renaming> openings(const Labels &labels) const {
        std::vector<Terms::Renaming> ways;
        Terms::Renaming names;
        Labels taken;
        const auto open = [&](const auto &self, std::size_t place) -> void {
            if (place == labels.size()) {
                ways.push_back(names);
                return;
            }
            const Label l = labels[place];
            for (const Label name : l == atomic(l) ? Labels{l} : names_for(l)) {
                if (contains(taken, name)) continue;
                taken.push_back(name);
                if (l != name) names.emplace_back(l, name);
                self(self, place + 1);
                if (l != name) names.pop_back();
                taken.pop_back();
            }
        };
        open(open, 0);
        return ways;
    }

    Labels names_for(Label l) const {
        const Base base = static_cast<Base>(atomic(l) / kParts + 1);
        const int part = static_cast<int>(atomic(l) % kParts);
        for (const std::vector<Base> &group : exchangeable_) {
            if (std::ranges::find(group, base) == group.end()) continue;
            Labels names;
            for (const Base other : group) names.push_back(label(other, part));
            return names;
        }
        return {atomic(l)};
    }

    // The parts of one dimension, which stand together in a variable, must have got one name.
    bool consistent(Poly p) {
        if (exchangeable_.empty()) return true;
        // Terms share their arguments: without a memory, a chain of residuals takes time exponential in its length.
        const auto known = consistent_.find(p);
        if (known != consistent_.end()) return known->second;
        const bool is = names_agree(p);
        consistent_.emplace(p, is);
        return is;
    }

    bool names_agree(Poly p) {
        for (const Mono m : terms_.monos(p))
            for (const Comp c : terms_.comps(m))
                for (const Atom a : terms_.atoms(c)) {
                    if (terms_.kind(a) != Terms::kVariable) {
                        if (!consistent(terms_.argument(a))) return false;
                        continue;
                    }
                    const std::span<const Label> labels = terms_.labels(a);
                    for (std::size_t i = 1; i < labels.size(); ++i) {
                        const Label l = labels[i], before = labels[i - 1];
                        const bool same_dimension = atomic(l) % kParts != 0 && l == atomic(l) && before == atomic(before);
                        if (same_dimension && atomic(l) / kParts != atomic(before) / kParts) return false;
                    }
                }
        return true;
    }

    std::vector<Poly> open(Poly p) {
        std::vector<Poly> opened;
        for (const Terms::Renaming &names : openings(terms_.free_of(p))) opened.push_back(terms_.rename(p, names));
        return opened;
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

    const std::vector<Part> &pieces(Comp c) {
        const auto known = pieces_.find(c);
        if (known != pieces_.end()) return known->second;
        std::vector<Part> made;
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
                const auto factors = components(summed, some);
                if (!factors) continue;
                for (const Terms::Renaming &names : openings(without(inside, summed))) {
                    made.push_back(cut(bound, *factors, rest, inside, summed, names));
                    // It will be found alone; now already, so that what has too many is known before all are made.
                    if (!factors->empty()) find(terms_.poly({terms_.mono(made.back().factors)}));
                    check();
                }
            }
        });
        std::ranges::sort(made);
        made.erase(std::unique(made.begin(), made.end()), made.end());
        return pieces_.emplace(c, std::move(made)).first->second;
    }

    Part cut(const Labels &bound, const std::vector<Comp> &factors, const std::vector<Atom> &rest, const Labels &inside,
             const Labels &summed, const Terms::Renaming &names) {
        Part piece;
        for (const Comp factor : factors) piece.factors.push_back(terms_.rename_comp(factor, names));
        std::ranges::sort(piece.factors);

        // Labels that reach into the context are marked there, those too that this part happens to lack: what is added
        // to it may have them. A label that is open and not in the context must be one of every term.
        const Labels outside = free_of(rest);
        Terms::Renaming holes;
        Labels left, open;
        for (const Label l : bound)
            if (contains(inside, l) && !contains(summed, l)) {
                holes.emplace_back(l, copy_of(renamed(l, names), kHole));
                if (!contains(outside, l)) open.push_back(holes.back().second);
            }
        for (const Label l : bound) {
            if (contains(inside, l)) continue;
            const Label name = copy_of(l, kHole);
            const bool taken = std::ranges::any_of(holes, [&](const auto &hole) { return hole.second == name; });
            if (taken) left.push_back(l);
            else holes.emplace_back(l, name);
        }
        std::ranges::sort(holes);
        const auto leave = [&](std::uint32_t comp, Label label) {
            const std::uint32_t key[] = {comp, label};
            piece.contexts.push_back(contexts_.intern(key));
        };
        std::vector<Atom> marked;
        for (const Atom a : rest) marked.push_back(terms_.rename_atom(a, holes));
        // Factors that no label binds together are left one by one: another term may have them in other sums.
        if (left.empty())
            for (const Atom a : marked) leave(terms_.comp({}, {a}) + 1, 0);
        else
            leave(terms_.comp(left, marked) + 1, 0);
        for (const Label l : open) leave(0, l);
        std::ranges::sort(piece.contexts);

        Labels around;
        for (const Label l : bound)
            if (contains(outside, l)) around.push_back(l);
        const auto closed = open.empty() ? components(around, rest) : std::nullopt;
        piece.closes = closed.has_value();
        if (closed) piece.closed = *closed;
        std::ranges::sort(piece.closed);
        return piece;
    }

    // A term that is free of what a sum binds stands before the sum: c·Σ w is Σ c·w. Where another term leaves the
    // context Σ ·w, this one does too, with the part c.
    std::optional<Mono> part_before(Mono m, const std::vector<Comp> &closed) {
        std::vector<Comp> left(terms_.comps(m).begin(), terms_.comps(m).end());
        for (const Comp c : closed) {
            const auto found = std::ranges::find(left, c);
            if (found == left.end()) return std::nullopt;
            left.erase(found);
        }
        if (left.empty()) return std::nullopt;
        return terms_.mono(std::move(left));
    }

    const std::vector<Part> &parts(Mono m) {
        const auto known = parts_.find(m);
        if (known != parts_.end()) return known->second;
        std::vector<Part> made{Part{}};
        const std::vector<Comp> comps(terms_.comps(m).begin(), terms_.comps(m).end());
        for (const Comp c : comps) {
            std::vector<Part> longer;
            for (const Part &part : made)
                for (const Part &piece : pieces(c)) {
                    longer.push_back(joined(part, piece));
                    check();
                }
            std::ranges::sort(longer);
            longer.erase(std::unique(longer.begin(), longer.end()), longer.end());
            made = std::move(longer);
        }
        std::erase_if(made, [](const Part &part) { return part.factors.empty(); });
        return parts_.emplace(m, std::move(made)).first->second;
    }

    bool is_negative(Mono m) const { return !terms_.comps(m).empty() && terms_.comps(m)[0] == Terms::kMinusOneComp; }

    Part negated(const Part &part) {
        for (const Part &piece : pieces(Terms::kMinusOneComp))
            if (piece.factors.empty()) {
                Part made = joined(part, piece);
                made.factors.insert(made.factors.begin(), Terms::kMinusOneComp);
                return made;
            }
        return part;
    }

    static Part joined(const Part &part, const Part &piece) {
        Part both = part;
        const auto append = [](auto &to, const auto &from) {
            to.insert(to.end(), from.begin(), from.end());
            std::ranges::sort(to);
        };
        append(both.factors, piece.factors);
        append(both.contexts, piece.contexts);
        append(both.closed, piece.closed);
        both.closes &= piece.closes;
        return both;
    }

    // Parts of several monos that leave the same context are a sum that the context is applied to.
    void collect(Poly p) {
        const std::vector<Mono> monos(terms_.monos(p).begin(), terms_.monos(p).end());
        struct Found {
            std::vector<std::vector<Mono>> choices; // of each mono
            std::set<std::vector<Comp>> closed;
        };
        std::map<std::vector<Context>, Found> by_context;
        const bool negative = std::ranges::any_of(monos, [&](Mono m) { return is_negative(m); });
        for (std::size_t i = 0; i < monos.size(); ++i)
            for (const Part &part : parts(monos[i])) {
                const auto offer = [&](const Part &some) {
                    Found &found = by_context[some.contexts];
                    found.choices.resize(monos.size());
                    const Mono made = terms_.mono(some.factors);
                    auto &choice = found.choices[i];
                    if (std::ranges::find(choice, made) == choice.end()) choice.push_back(made);
                    if (some.closes) found.closed.insert(some.closed);
                };
                offer(part);
                // a - b is -(b - a): beside a negative term every other one is minus its negative.
                if (negative && !is_negative(monos[i])) offer(negated(part));
            }
        for (auto &[context, found] : by_context) {
            auto &choices = found.choices;
            for (std::size_t i = 0; i < monos.size() && monos.size() > 1; ++i)
                for (const std::vector<Comp> &closed : found.closed)
                    if (const auto part = part_before(monos[i], closed); part && std::ranges::find(choices[i], *part) == choices[i].end())
                        choices[i].push_back(*part);
            std::erase_if(choices, [](const auto &choice) { return choice.empty(); });
            std::vector<std::size_t> picked(choices.size(), 0);
            for (bool more = true; more;) {
                std::vector<Mono> sum;
                for (std::size_t i = 0; i < choices.size(); ++i)
                    if (picked[i]) sum.push_back(choices[i][picked[i] - 1]);
                if (!sum.empty()) find(terms_.poly(std::move(sum)));
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
                    for (const Poly opened : open(value))
                        if (consistent(opened)) work.push_back(opened);
                });
            }
        }
    }

    Terms &terms_;
    const Exchangeable &exchangeable_;
    std::size_t limit_, steps_ = 0;
    const std::function<bool()> &stopped_;
    Rows contexts_;
    std::map<Comp, std::vector<Part>> pieces_;
    std::map<Mono, std::vector<Part>> parts_;
    std::unordered_set<Poly> found_;
    std::unordered_map<Poly, bool> consistent_;
};

} // namespace

std::vector<Terms::Poly> sub_values(Terms &terms, const std::vector<Terms::Poly> &targets, const Exchangeable &exchangeable,
                                    std::size_t limit, const std::function<bool()> &stopped) {
    return Decomposition(terms, exchangeable, limit, stopped).run(targets);
}

} // namespace tilesmith
