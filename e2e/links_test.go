package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	fenced  = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	quoted  = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	scheme  = regexp.MustCompile(`^[a-z]+:`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*?) *$`)
	inLink  = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	noWord  = regexp.MustCompile(`[^\pL\pN_\- ]`)
)

// pages are the Markdown pages of this repository, by path.
func pages(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bin" || d.Name() == ".git" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		all[path] = fenced.ReplaceAllString(string(text), "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// anchors are what GitHub makes of the headings of a page.
func anchors(page string) map[string]bool {
	all, seen := map[string]bool{}, map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		text := noWord.ReplaceAllString(strings.ToLower(inLink.ReplaceAllString(m[1], "$1")), "")
		name := strings.ReplaceAll(text, " ", "-")
		if n := seen[name]; n > 0 {
			all[fmt.Sprintf("%s-%d", name, n)] = true
		}
		all[name] = true
		seen[name]++
	}
	return all
}

// broken says which links of the pages lead nowhere, and how many there are to files.
func broken(all map[string]string) (wrong []string, links int) {
	for path, page := range all {
		for _, m := range link.FindAllStringSubmatch(quoted.ReplaceAllString(page, ""), -1) {
			if scheme.MatchString(m[1]) {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(to); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %s: %v", path, m[1], err))
			} else if anchor != "" && !anchors(all[to])[anchor] {
				wrong = append(wrong, fmt.Sprintf("%s: %s: %s has no such heading", path, m[1], to))
			}
		}
	}
	return wrong, links
}

func TestEveryLinkOfThePagesLeadsToAFileAndAHeading(t *testing.T) {
	wrong, links := broken(pages(t, ".."))
	if links < 150 {
		t.Errorf("only %d links were found", links)
	}
	for _, one := range wrong {
		t.Error(one)
	}
}

func TestALinkThatLeadsNowhereIsFound(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	text := "# A `page` (of *two*)\n## Back\n## Back\n[1](#a-page-of-two) [2](#back-1) [3](page.md#back) [4](https://x/y) `[5](gone.md)`\n[6](#back-2) [7](gone.md)\n```\n[8](gone.md)\n# In code\n```\n[9](#in-code)\n"
	if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong, links := broken(pages(t, filepath.Dir(page)))
	want := []string{
		page + ": #back-2: " + page + " has no such heading",
		page + ": gone.md: stat " + filepath.Join(filepath.Dir(page), "gone.md") + ": no such file or directory",
		page + ": #in-code: " + page + " has no such heading",
	}
	if diff := cmp.Diff(want, wrong); diff != "" || links != 6 {
		t.Errorf("%d links; what leads nowhere (-want +got):\n%s", links, diff)
	}
}

func TestTheIndexOfTheDocumentationNamesEveryPage(t *testing.T) {
	all := pages(t, filepath.Join("..", "docs"))
	index := filepath.Join("..", "docs", "README.md")
	for path := range all {
		name, err := filepath.Rel(filepath.Dir(index), path)
		if err != nil {
			t.Fatal(err)
		}
		if path != index && !strings.Contains(all[index], "]("+filepath.ToSlash(name)+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}
